"""The README's pictures, taken from recorded runs: `make screenshots`.

The runs are real ones of `qig-core train`, recorded once into screenshots/.recorded (a quarter of an hour on two cores)
and kept there: pictures that are made again from the same recording are the same.
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from qig_core.rundir.layout import RunDir
from qig_core.rundir.reader import read_all
from qig_core.rundir.schema import Sample

HERE = Path(__file__).parent
RECORDED = HERE / ".recorded"
DONE = RECORDED / "done"
CORE = (sys.executable, "-m", "qig_core.cli")
TUI = (sys.executable, "-m", "qig_tui.cli")
STEPS = 1500
BACK = (900, 500)
"""The run is taken back from this step to this one, and goes on."""
SHORT = {"hot": ("tiny", 400, "lr = 3.0"), "cold": ("tiny", 400, "lr = 1e-5"), "warm": ("tiny", 400, "")}
"""Runs beside it in the list: a preset, steps, and what their configuration says of the optimiser."""
PROGRAMS = {"charlie": ("--program", "charlie"), "constellation": ("--program", "constellation", "--preset", "tiny")}
PICTURES: Sequence[tuple[str, str, str, str, tuple[str, ...]]] = (
    ("run.svg", "example", "160x48", "dark", ()),
    ("run-light.svg", "example", "160x48", "light", ()),
    ("run-80x24.svg", "example", "80x24", "dark", ()),
    ("past.svg", "example", "160x48", "dark", ("--at", "700")),
    ("basin.svg", "example", "160x48", "dark", ("--screen", "basin")),
    ("safety.svg", "hot", "160x38", "dark", ("--screen", "safety")),
    ("checkpoints.svg", "example", "160x36", "dark", ("--screen", "checkpoints")),
    ("compare.svg", "example", "160x48", "dark", ("--screen", "compare")),
    ("notes.svg", "example", "110x32", "light", ("--screen", "notes")),
    ("charlie.svg", "charlie", "160x48", "dark", ("--at", "900")),
    ("constellation.svg", "constellation", "160x26", "dark", ("--screen", "program")),
    ("runs.svg", "", "120x12", "dark", ()),
)
NOTES = """\
# Does the basin come back?

Taken back from step 900 to 500 by hand, and gone on from there; `lower-rate` is a fork of step 1 000.

$$ d(p, q) = 2 \\arccos \\sum_{k=1}^{64} \\sqrt{p_k q_k} $$

- `2` shows how far the basin has gone, and `n` there the nearest past state
- $\\phi$ is a score in $[0, 1)$ of what crosses the weakest cut:

$$
\\phi = \\sqrt{1 - e^{-2\\Phi/K}}, \\qquad
\\Phi = \\frac{1}{2} \\sum_{\\text{both ways}} \\log\\det\\left(I + \\frac{A A^\\top}{\\varepsilon^2}\\right)
$$

| run | learning rate |
|---|---|
| example | 3e-3 |
| lower rate | 5e-4 |
| hot | 3 |
"""


def last_step(run: RunDir) -> int:
    return max((r.step for r in read_all(run.telemetry(), Sample) if isinstance(r, Sample)), default=0)


def train(*words: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([*CORE, "train", "--runs", str(RECORDED), *words], stderr=subprocess.DEVNULL)


def record() -> None:
    """Train what the pictures show."""
    RECORDED.mkdir(exist_ok=True)
    for name, (preset, steps, optimizer) in SHORT.items():
        config = RECORDED / f"{name}.toml"
        config.write_text(f"[optimizer]\n{optimizer}\n")
        # A run that its own limits end is a part of the picture.
        train("--config", str(config), "--preset", preset, "--steps", str(steps), "--id", name, "--name", name).wait()
    for name, words in PROGRAMS.items():
        train(*words, "--id", name, "--name", name).wait()
    run = RunDir(RECORDED / "example")
    with train("--id", "example", "--name", "example", "--steps", str(STEPS)) as trainer:
        while trainer.poll() is None and last_step(run) < BACK[0]:
            time.sleep(1)
        subprocess.run([*CORE, "ctl", str(run.path), "restore", str(BACK[1]), "--wait", "60"], check=True)
    config = RECORDED / "lower.toml"
    config.write_text("[optimizer]\nlr = 0.0005\n")
    fork = ("--fork", f"example@{STEPS - 500}", "--config", str(config), "--id", "lower-rate", "--name", "lower rate")
    train(*fork, "--steps", str(STEPS)).wait()
    DONE.touch()


def main() -> None:
    if not DONE.exists():
        print("recording the runs that the pictures show; about a quarter of an hour", flush=True)
        record()
    RunDir(RECORDED / "example").notes.write_text(NOTES)
    os.environ["QIG_DASHBOARD_STATE"] = str(RECORDED / "state.json")
    for name, run, size, theme, words in PICTURES:
        target = HERE / name
        what = str(RECORDED / run)
        subprocess.run([*TUI, what, "--screenshot", str(target), "--size", size, "--theme", theme, *words], check=True)
        # The folder is one of this machine.
        target.write_text(target.read_text().replace(str(RECORDED), "~/runs"))
        print(target.name, flush=True)


if __name__ == "__main__":
    main()
