"""The README's pictures, taken from a real run while it trains: `make screenshots`. Three minutes on two cores."""

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
)


def last_step(run: RunDir) -> int:
    return max((r.step for r in read_all(run.telemetry(), Sample) if isinstance(r, Sample)), default=0)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = RunDir(Path(folder) / "example")
        core, tui = [sys.executable, "-m", "qig_core.cli"], [sys.executable, "-m", "qig_tui.cli"]
        train = [*core, "train", "--runs", folder, "--id", run.id, "--name", "example", "--steps", "2000"]
        with subprocess.Popen(train, stderr=subprocess.DEVNULL) as trainer:
            while trainer.poll() is None and last_step(run) < STEP:
                time.sleep(1)
            for name, size, theme in PICTURES:
                target = HERE / name
                subprocess.run(
                    [*tui, str(run.path), "--screenshot", str(target), "--size", size, "--theme", theme], check=True
                )
                print(f"{target.name} at step {last_step(run)}")
            trainer.terminate()


if __name__ == "__main__":
    main()
