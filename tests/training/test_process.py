"""What a training process asks of OpenMP and malloc, seen in a real training process."""

import subprocess
import sys

import pytest

FAULTS = """
import os, resource, statistics, sys
from itertools import pairwise
from qig_core.training.process import settle
if sys.argv[1] == "settled":
    settle()
from qig_core.training.config import build
from qig_core.training.corpus import default_corpus
from qig_core.training.trainer import Trainer

trainer = Trainer(build({}), default_corpus())
counts = []
for step in range(15):
    trainer.forward_backward(step)
    trainer.optimizer.step()
    counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
after = counts[3:]
print(statistics.median(b - a for a, b in pairwise(after)), os.environ["GOMP_SPINCOUNT"])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_the_pages_of_a_step_are_kept_and_a_spin_count_of_the_user_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")

    def faults_a_step(how: str) -> float:
        argv = [sys.executable, "-c", FAULTS, how]
        faults, spin = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
        assert spin == "7"
        return float(faults)

    # The median step of each: now and then an arena of another thread grows, and then it is a few hundred more.
    assert faults_a_step("settled") < 0.5 * faults_a_step("as it comes")
