"""kill -9 at any moment: no record that log() returned from is lost, and every run goes on."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qig_core.rundir.layout import RunDir
from qig_core.rundir.reader import read_all
from qig_core.rundir.schema import Sample
from tests.endtoend.commands import core

# The real trainer; after each return of log() the seq goes down a pipe.
CHILD = """
import os, sys
from qig_core.rundir.writer import TelemetryCollector
log = TelemetryCollector.log
pipe = int(sys.argv[1])
def telling(self, *args, **kwargs):
    seq = log(self, *args, **kwargs)
    os.write(pipe, b"%d\\n" % seq)
    return seq
TelemetryCollector.log = telling
from qig_core.cli import main
sys.argv = ["qig-core", *sys.argv[2:]]
main()
"""


def kill_at_random(root: Path, seed: int) -> None:
    chance = random.Random(seed)
    read_end, write_end = os.pipe()
    config = root / "often.toml"
    config.write_text("[cadence]\ncheckpoint_every = 10\n")
    command = ["train", "--preset", "tiny", "--config", str(config), "--steps", "100000", "--runs", str(root)]
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(write_end), *command, "--id", "victim"],
        pass_fds=[write_end],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as child:
        os.close(write_end)
        with os.fdopen(read_end, "rb") as told:
            first = told.readline()
            time.sleep(chance.uniform(0.0, 1.5))
            child.send_signal(signal.SIGKILL)
            returned = [int(line) for line in [first, *told.read().split(b"\n")] if line]
    run = RunDir(root / "victim")
    records = read_all(run.telemetry(), Sample)
    written = {r.seq for r in records if isinstance(r, Sample)}
    assert returned
    assert set(returned) <= written

    last = max(r.step for r in records if isinstance(r, Sample))
    done = core("train", "--resume", run.path, "--steps", str(last + 3))
    assert done.returncode == 0, done.stderr
    after = [r for r in read_all(run.telemetry(), Sample) if isinstance(r, Sample)]
    assert [s.seq for s in after] == sorted({s.seq for s in after})
    assert after[-1].step == last + 3


def test_a_killed_run_lost_nothing_and_goes_on(tmp_path: Path) -> None:
    kill_at_random(tmp_path, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 120))
def test_twenty_killed_runs_lost_nothing_and_go_on(tmp_path: Path, seed: int) -> None:
    kill_at_random(tmp_path, seed)
