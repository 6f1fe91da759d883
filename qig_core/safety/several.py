"""A profile for several models in one run: each limit once a model, on metrics that carry its name. No judging."""

from collections.abc import Sequence
from typing import Any

import msgspec

from qig_core.safety.profile import EarlyWarning, Floor, Limit, Measured, NonFinite, Profile, Stall

MACHINE = frozenset({"cpu_pct", "gpu_mem_bytes", "gpu_mem_pct", "gpu_util_pct", "rss_bytes", "step_ms", "tokens_per_s"})
"""Metrics of the process, which there is one of."""


def of_several(profile: Profile, names: Sequence[str]) -> Profile:
    """Each limit about a model's metric becomes one for each name: "gary1.divergence" of gary1.loss, and so on.

    What is about the process stays as it is; a soft reset answers for every model what it answered for one.
    """
    limits: list[Limit] = []
    soft_reset = profile.soft_reset
    for limit in profile.limits:
        if isinstance(limit, Stall) or getattr(limit, "metric", "") in MACHINE:
            limits.append(limit)
        else:
            limits += [_of(limit, name) for name in names]
    if soft_reset is not None:
        kept = [limit.id for limit in limits]
        answered = [each for each in kept if each.rpartition(".")[2] in soft_reset.limits or each in soft_reset.limits]
        soft_reset = msgspec.structs.replace(soft_reset, limits=tuple(answered))
    return msgspec.structs.replace(profile, limits=tuple(limits), soft_reset=soft_reset)


def _of(limit: Limit, name: str) -> Limit:
    changes: dict[str, Any] = {"id": f"{name}.{limit.id}"}
    if isinstance(limit, NonFinite | Measured):
        changes["metrics"] = tuple(f"{name}.{metric}" for metric in limit.metrics)
    elif isinstance(limit, EarlyWarning):
        changes["metrics"] = {f"{name}.{metric}": way for metric, way in limit.metrics.items()}
    elif not isinstance(limit, Stall):
        changes["metric"] = f"{name}.{limit.metric}"
    if isinstance(limit, Floor):
        changes["rebase_on"] = f"{name}.{limit.rebase_on}"
    return msgspec.structs.replace(limit, **changes)
