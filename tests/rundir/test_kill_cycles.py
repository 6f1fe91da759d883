"""kill -9 at random moments: no record that log() returned from is ever missing, and each opening goes on from it."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from qig_core.rundir.layout import RunDir
from qig_core.rundir.lock import lock_holder
from qig_core.rundir.reader import read_all, read_manifest
from qig_core.rundir.schema import Event, Sample, Unreadable
from qig_core.rundir.writer import RunWriter

CYCLES = 20

LOG = """
import os, sys
from pathlib import Path
from qig_core.rundir.layout import RunDir
from qig_core.rundir.schema import Manifest
from qig_core.rundir.writer import RunWriter
assert "torch" not in sys.modules
run = RunDir(sys.argv[1])
writer = RunWriter.reopen(run) if run.exists() else RunWriter.create(run.path.parent, Manifest(id=run.id))
step = 0
while True:
    seq = writer.telemetry.log(step, {"phi": 0.5, "loss": step / 7}, basin=bytes(256))
    writer.step_done(step)
    if step % 10 == 0:
        writer.event("note", step=step, text="x" * 200)
    os.write(1, b"%d\\n" % seq)
    step += 1
"""


def killed_after(run: RunDir, seconds: float) -> list[int]:
    """The seqs that a child told after log() had returned, until it was killed."""
    child = subprocess.Popen([sys.executable, "-c", LOG, str(run.path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    told = os.read(child.stdout.fileno(), 1 << 16)
    time.sleep(seconds)
    child.send_signal(signal.SIGKILL)
    told += child.stdout.read()
    child.stdout.close()
    assert child.wait() == -signal.SIGKILL
    whole = told[: told.rfind(b"\n") + 1]
    return [int(line) for line in whole.split()]


def test_no_record_that_was_returned_from_is_missing_after_kill_9(tmp_path: Path) -> None:
    moments = random.Random(20)
    run = RunDir(tmp_path / "r1")
    told: list[int] = []
    for cycle in range(CYCLES):
        new = killed_after(run, moments.uniform(0.0, 0.05))
        assert new
        # A number that was told is never given again; one that was only written may be missing here, not there.
        assert not told or new[0] > told[-1]
        told += new
        found = read_all(run.telemetry(), Sample)
        seqs = [r.seq for r in found if isinstance(r, Sample)]
        assert seqs == sorted(set(seqs))
        assert not set(told) - set(seqs)
        # The kernel may cut a write(2) short at a page's end when the process is killed in it: log() had not returned.
        assert sum(isinstance(r, Unreadable) for r in found) <= cycle
        assert lock_holder(run.lock) is None
        assert len(read_manifest(run).sessions) == cycle + 1
    events = [r.seq for r in read_all(run.events, Event) if isinstance(r, Event)]
    assert events == sorted(set(events))
    with RunWriter.reopen(run) as writer:
        assert writer.telemetry.log(0, {"phi": 0.5}) == max(seqs) + 1
    assert [name for name in os.listdir(run.path) if name.endswith(".tmp")] == []
