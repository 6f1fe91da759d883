"""A training loop that is not ours, watched in four lines (marked 1 to 4), and brought back in three more.

    python examples/your_own_loop.py [--runs FOLDER] [--steps N] [--resume RUN]

Then `qig-tui RUN` in another terminal, or `kill -TERM` to see it stop in order. RUN is an id, `latest`, a name or a
path, with @STEP for another than the newest checkpoint.
"""

import argparse
import sys
from typing import Any

import torch
from torch import nn

from qig_core.checkpoints.saving import restorer, saver
from qig_core.errors import QigError
from qig_core.safety.integrated import IntegratedMonitor


def main() -> int:
    parser = argparse.ArgumentParser(description="Fit a noisy sine by a small network.")
    parser.add_argument("--runs", default="runs")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--resume", metavar="RUN[@STEP|@CHECKPOINT]")
    given = parser.parse_args()

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    def state() -> dict[str, Any]:
        return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}

    def load_state(state: dict[str, Any]) -> None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])

    with IntegratedMonitor.open(
        given.runs,
        name="a noisy sine",
        total_steps=given.steps,
        checkpoint_every=500,
        save=saver(state),
        restore=restorer(load_state),
        resume=given.resume,
    ) as monitor:  # 1
        for step in monitor.steps():  # 2
            x = torch.rand(64, 1) * 6.0 - 3.0
            loss = nn.functional.mse_loss(model(x), torch.sin(x) + 0.1 * torch.randn(64, 1))
            optimizer.zero_grad()
            loss.backward()
            grad_norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            metrics = {"loss": loss.item(), "grad_norm": grad_norm.item()}
            if monitor.check(step, metrics):  # 3: the update is left out where the run stops, or goes back
                optimizer.step()
    return monitor.exit_code  # 4


if __name__ == "__main__":
    try:
        sys.exit(main())
    except QigError as error:  # no such run, one that is locked: a sentence and an exit code, no traceback
        print(f"your_own_loop: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
