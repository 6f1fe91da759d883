"""Does awakening raise phi, and does it cost held-out loss, against a copy that was never awakened?

Declared before the data:

hypothesis  When the cross blocks join and g rises to 1, phi rises, and held-out loss ends no worse than that of a
            branch from the same state which stays at g = 0 for the same steps on the same batches.
measure     Of each seed, over the last 3 evaluations of the awakening phase that both have: mean phi less the branch's,
            and mean held-out loss less the branch's.
null        phi lies above the branch's by at most 0.1; held-out loss lies above the branch's by at least 0.05 nats.
margins     0.1 of a score in [0, 1); 0.05 nats a byte.
rule        Both nulls are rejected over seeds, one-sided at 5 %: pass. The opposite of either claim is found at 5 %:
            fail. Else, or where a seed has no figure: inconclusive. A run that was stopped while awakening counts by
            the last evaluations that it has; one that never began to awaken has no figure.

Whether phi rises within each run (`qig_core.measures.trend`), and what share of the control's it reaches, is reported
beside it and judged by the run's own guards.
"""

from qig_core.experiments.experiment import (
    Experiment,
    Figures,
    Line,
    Panel,
    Result,
    Runs,
    column,
    less,
    mean,
    remarks,
)
from qig_core.experiments.reading import Curve, Recorded
from qig_core.experiments.suppression import wanted
from qig_core.experiments.verdict import judge
from qig_core.measures.trend import rising

PHI_MARGIN = 0.1
LOSS_MARGIN_NATS = 0.05
LAST = 3
_PHASE = "awakening"


def evaluate(runs: Runs) -> Result:
    """Judge the awakening phase of each seed."""
    figures = {seed: _figures(of_seed["charlie"]) for seed, of_seed in runs.items()}
    streams = (("awakened", ""), ("branch, g = 0", "branch"), ("control, g = 1", "control"))
    phi, loss = (
        [
            Line(label=label, points=of_seed["charlie"].within(_PHASE, metric, stream))
            for of_seed in runs.values()
            for label, stream in streams
        ]
        for metric in ("phi", "loss_heldout")
    )
    return Result(
        findings=[
            judge("phi_raised", "Φ, less the branch's", column(figures, "phi_over_branch"), above=PHI_MARGIN),
            judge(
                "loss_kept",
                "held-out loss, less the branch's",
                column(figures, "heldout_over_branch_nats"),
                unit="nats",
                below=LOSS_MARGIN_NATS,
            ),
        ],
        figures=figures,
        panels=[
            Panel(title="Φ while awakening", label="Φ", lines=phi),
            Panel(title="held-out loss while awakening", label="nats a byte", lines=loss),
        ],
        notes=remarks(runs),
    )


def _figures(run: Recorded) -> Figures:
    phi, heldout = run.within(_PHASE, "phi"), run.within(_PHASE, "loss_heldout")
    before = list(run.within("dormant", "loss_heldout").values())
    trend = rising(list(phi.values()))
    control = mean(_last(phi, run.within(_PHASE, "phi", "control"))[1])
    reached = mean(list(phi.values())[-LAST:])
    return {
        "evaluations": float(len(phi)),
        "phi_over_branch": _behind(phi, run.within(_PHASE, "phi", "branch")),
        "heldout_over_branch_nats": _behind(heldout, run.within(_PHASE, "loss_heldout", "branch")),
        "heldout_over_before_nats": less(mean(list(heldout.values())[-LAST:]), before[-1] if before else None),
        "phi": reached,
        "share_of_control": None if reached is None or not control else reached / control,
        "trend_p": trend.p,
        "trend_slope_per_evaluation": trend.slope,
    }


def _last(ours: Curve, theirs: Curve) -> tuple[list[float], list[float]]:
    """Both at the last LAST steps that both have."""
    both = sorted(ours.keys() & theirs.keys())[-LAST:]
    return [ours[step] for step in both], [theirs[step] for step in both]


def _behind(ours: Curve, theirs: Curve) -> float | None:
    """Mean of ours less theirs at the end."""
    first, second = _last(ours, theirs)
    return less(mean(first), mean(second))


AWAKENING = Experiment(name="awakening", declared=__doc__ or "", wanted=wanted, evaluate=evaluate)
