"""What a training step costs between measurements, alone and beside one busy process.

    python benchmarks/train_step.py [--steps N]

Ours: the batch in shards, one a thread (qig_core/training/shards.py). Floor: the same step with the batch whole and
torch's own threads. Both in one run, in alternating blocks, on two trainers of one seed. Exits 1 where a mark is missed
with the machine to ourselves: 10 steps/s at the default size, 100 at the tiny one. Prints what the machine did beside.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable

from qig_core.training.process import settle

settle()

import torch  # noqa: E402  # settle() speaks to libraries that read their settings when they are loaded
from torch import Tensor, nn  # noqa: E402

from qig_core.training.config import PRESETS, build  # noqa: E402
from qig_core.training.corpus import Corpus, default_corpus  # noqa: E402
from qig_core.training.shards import ShardedGradients  # noqa: E402
from qig_core.training.trainer import Trainer  # noqa: E402

MARKS = {"default": 10.0, "tiny": 100.0}
BLOCK = 10
ALL_THREADS = torch.get_num_threads()
BUSY = "while True: pass"


class WholeBatch(ShardedGradients):
    """The floor: one backward pass, its operations on torch's own threads."""

    def __init__(self) -> None:
        self.num_shards = 1

    def __call__(
        self, mean_loss: Callable[[Tensor], Tensor], parameters: Iterable[nn.Parameter], tokens: Tensor
    ) -> Tensor:
        for parameter in parameters:
            parameter.grad = None
        loss = mean_loss(tokens)
        loss.backward()
        return loss


def trainer_of(preset: str, corpus: Corpus, *, whole: bool) -> Trainer:
    config = build(PRESETS[preset])
    trainer = Trainer(config, corpus)
    if whole:
        trainer.gradients = WholeBatch()
    return trainer


def measure(preset: str, corpus: Corpus, steps: int) -> tuple[list[float], list[float], int]:
    """Milliseconds of every step, ours and the floor's, and the number of shards."""
    torch.set_num_threads(build(PRESETS[preset]).threads or ALL_THREADS)
    ours, floor = trainer_of(preset, corpus, whole=False), trainer_of(preset, corpus, whole=True)
    times: tuple[list[float], list[float]] = ([], [])
    for begin in range(0, steps + BLOCK, BLOCK):
        for trainer, taken in zip((ours, floor), times, strict=True):
            for step in range(begin, begin + BLOCK):
                started = time.perf_counter()
                trainer.forward_backward(step)
                trainer.optimizer.step()
                if begin:  # the first block warms up
                    taken.append(1e3 * (time.perf_counter() - started))
    return *times, ours.gradients.num_shards


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100)
    steps = parser.parse_args().steps
    corpus = default_corpus()
    print(f"torch {torch.__version__}, {ALL_THREADS} threads; load before: {os.getloadavg()[0]:.2f}")
    missed = False
    for beside in (False, True):
        busy = subprocess.Popen([sys.executable, "-c", BUSY]) if beside else None
        try:
            for preset, mark in MARKS.items():
                ours, floor, shards = measure(preset, corpus, steps if preset == "default" else 3 * steps)
                mine, theirs = statistics.median(ours), statistics.median(floor)
                rate = 1e3 / mine
                verdict = "" if beside else f"  mark {mark:g}: {'met' if rate >= mark else 'MISSED'}"
                missed |= not beside and rate < mark
                print(
                    f"{preset:8} {'beside a busy process' if beside else 'alone':22} ours {mine:7.1f} ms "
                    f"({rate:5.1f} steps/s, {shards} shards)  floor {theirs:7.1f} ms  x{theirs / mine:.2f}{verdict}"
                )
        finally:
            if busy is not None:
                busy.kill()
                busy.wait()
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
