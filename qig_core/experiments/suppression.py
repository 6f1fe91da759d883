"""Does suppression by structure hold phi at zero, where the same kernel would integrate without it?

Declared before the data:

hypothesis  A kernel whose cross blocks are multiplied by g = 0 has phi = 0 at every evaluation while it learns its
            text; a control of the same birth, text and batches, with g = 1 and cross weights from birth, has not.
measure     Of each seed, over all evaluations of the dormant phase: the largest phi of the suppressed kernel; the mean
            phi of the control less the mean phi of the suppressed kernel, at the same steps.
null        The largest phi is at least 0.01; the control's phi lies above by at most 0.1 (the mechanism is vacuous).
margins     0.01 and 0.1, of a score in [0, 1).
rule        Both nulls are rejected over seeds, one-sided at 5 %: pass. The opposite of either claim is found at 5 %:
            fail. Else, or where a seed has no figure: inconclusive. A run that was stopped counts by what it measured;
            one in which an evaluation gave no phi has no figure.
"""

from collections.abc import Sequence

from qig_core.experiments.experiment import (
    Experiment,
    Figures,
    Line,
    Panel,
    Result,
    Runs,
    Wanted,
    column,
    less,
    mean,
    remarks,
    want,
)
from qig_core.experiments.reading import Recorded
from qig_core.experiments.verdict import judge

PHI_MARGIN = 0.01
CONTROL_MARGIN = 0.1
_PHASE = "dormant"


def wanted(preset: str, seed: int) -> Sequence[Wanted]:
    """One run of charlie; the experiment awakening reads the same."""
    return [want("charlie", preset, "charlie", seed)]


def evaluate(runs: Runs) -> Result:
    """Judge the dormant phase of each seed."""
    figures = {seed: _figures(of_seed["charlie"]) for seed, of_seed in runs.items()}
    lines = []
    for of_seed in runs.values():
        run = of_seed["charlie"]
        lines.append(Line(label="suppressed, g = 0", points=run.within(_PHASE, "phi")))
        lines.append(Line(label="control, g = 1", points=run.within(_PHASE, "phi", "control")))
    return Result(
        findings=[
            judge("phi_zero", "largest Φ while dormant", column(figures, "phi_max"), below=PHI_MARGIN),
            judge(
                "control_integrates", "Φ of the control, less Φ", column(figures, "control_above"), above=CONTROL_MARGIN
            ),
        ],
        figures=figures,
        panels=[Panel(title="Φ while dormant", label="Φ", lines=lines)],
        notes=remarks(runs),
    )


def _figures(run: Recorded) -> Figures:
    phi, control = run.within(_PHASE, "phi"), run.within(_PHASE, "phi", "control")
    heldout, beside = (list(run.within(_PHASE, "loss_heldout", stream).values()) for stream in ("", "control"))
    both = sorted(phi.keys() & control.keys())
    missing = run.missing(_PHASE, "phi")
    return {
        "evaluations": float(len(phi)),
        "evaluations_without_phi": float(missing),
        "phi_max": max(phi.values(), default=None) if not missing else None,
        "control_above": less(mean([control[step] for step in both]), mean([phi[step] for step in both])),
        "control_min": min((control[step] for step in both), default=None),
        "heldout_fell_nats": heldout[0] - heldout[-1] if heldout else None,
        "heldout_over_control_nats": heldout[-1] - beside[-1] if heldout and beside else None,
    }


SUPPRESSION = Experiment(name="suppression", declared=__doc__ or "", wanted=wanted, evaluate=evaluate)
