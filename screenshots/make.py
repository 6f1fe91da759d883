"""The README's pictures, taken from a real run while it trains: `make screenshots`. Five minutes on two cores."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from qig_core.rundir.layout import RunDir
from qig_core.rundir.reader import read_all
from qig_core.rundir.schema import Sample

HERE = Path(__file__).parent
STEP = 1500
PICTURES = (
    ("run.svg", "160x48", "dark"),
    ("run-light.svg", "160x48", "light"),
    ("run-80x24.svg", "80x24", "dark"),
    ("runs.svg", "120x12", "dark"),
)


OTHERS = {"warm": "", "hot": "lr = 3.0\n", "cold": "lr = 1e-5\n"}
"""Runs beside it in the list: their names, and what their configuration says."""


def last_step(run: RunDir) -> int:
    return max((r.step for r in read_all(run.telemetry(), Sample) if isinstance(r, Sample)), default=0)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = RunDir(Path(folder) / "example")
        core, tui = [sys.executable, "-m", "qig_core.cli"], [sys.executable, "-m", "qig_tui.cli"]
        for name, settings in OTHERS.items():
            config = Path(folder) / f"{name}.toml"
            config.write_text(f"[optimizer]\n{settings}")
            short = [*core, "train", "--config", str(config), "--preset", "tiny", "--steps", "400", "--runs", folder]
            # A run that its own limits end is a part of the picture.
            subprocess.run([*short, "--id", name, "--name", name], stderr=subprocess.DEVNULL)
        train = [*core, "train", "--runs", folder, "--id", run.id, "--name", "example", "--steps", "2000"]
        with subprocess.Popen(train, stderr=subprocess.DEVNULL) as trainer:
            while trainer.poll() is None and last_step(run) < STEP:
                time.sleep(1)
            for name, size, theme in PICTURES:
                target = HERE / name
                what = folder if name.startswith("runs") else str(run.path)
                subprocess.run([*tui, what, "--screenshot", str(target), "--size", size, "--theme", theme], check=True)
                # The folder is one of this moment.
                target.write_text(target.read_text().replace(folder, "~/runs"))
                print(f"{target.name} at step {last_step(run)}")
            trainer.terminate()


if __name__ == "__main__":
    main()
