"""How the trainer's metrics are to be shown: name, unit, label, range, reference lines. Shown only; never a limit."""

from collections.abc import Sequence

import msgspec

from qig_core.rundir.schema import MetricSpec, ReferenceLine

SPECS: tuple[MetricSpec, ...] = (
    MetricSpec(
        name="phi",
        label="Φ integration",
        range=(0.0, 1.0),
        references=[
            ReferenceLine(0.45, "geometric", upto=0.75),
            ReferenceLine(0.75, "hyperdimensional"),
            ReferenceLine(0.90, "topological instability: phi ≥ 0.90", "warning", upto=1.0),
        ],
        better="band",
    ),
    MetricSpec(name="kappa", unit="rad⁻¹", label="κ coupling", better="band"),
    MetricSpec(name="loss", unit="nats", label="loss", range=(0.0, None), better="lower"),
    MetricSpec(name="loss_heldout", unit="nats", label="held-out loss", range=(0.0, None), better="lower"),
    MetricSpec(
        name="drift_rolling",
        unit="rad",
        label="basin drift",
        range=(0.0, 3.1416),
        references=[ReferenceLine(0.60, "0.60 rad", "warning")],
        better="lower",
    ),
    MetricSpec(name="drift_birth", unit="rad", label="drift from birth", range=(0.0, 3.1416)),
    MetricSpec(name="drift_velocity", unit="rad", label="basin velocity", range=(0.0, 3.1416)),
    MetricSpec(name="drift_acceleration", unit="rad", label="basin acceleration", range=(0.0, 6.2832)),
    MetricSpec(name="coherence", label="basin coherence", range=(0.0, 1.0), better="band"),
    MetricSpec(name="phi_nats", unit="nats", label="Φ across the cut", range=(0.0, None)),
    MetricSpec(name="grad_norm", label="gradient norm", range=(0.0, None)),
    MetricSpec(name="breakdown_pct", unit="%", label="breakdown", range=(0.0, 100.0), better="lower"),
    MetricSpec(name="recursion_depth", unit="passes", label="recursion depth", range=(0.0, None)),
    MetricSpec(name="lr", label="learning rate", range=(0.0, None)),
    MetricSpec(name="tokens", unit="tokens", label="tokens trained on", range=(0.0, None)),
    MetricSpec(name="tokens_per_s", unit="tokens/s", label="throughput", range=(0.0, None), better="higher"),
    MetricSpec(name="step_ms", unit="ms", label="step time", range=(0.0, None), better="lower"),
    MetricSpec(name="cpu_pct", unit="%", label="processor", range=(0.0, None)),
    MetricSpec(name="rss_bytes", unit="bytes", label="memory", range=(0.0, None)),
    MetricSpec(name="gpu_util_pct", unit="%", label="GPU", range=(0.0, 100.0)),
    MetricSpec(name="gpu_mem_bytes", unit="bytes", label="GPU memory", range=(0.0, None)),
    MetricSpec(name="gpu_mem_pct", unit="%", label="GPU memory in use", range=(0.0, 100.0)),
)

_OF_NATURAL = (
    MetricSpec(name="damping", label="damping λ", range=(0.0, None)),
    MetricSpec(name="step_kl", unit="nats", label="KL of the last step", range=(0.0, None)),
    MetricSpec(name="reduction_ratio", label="actual / predicted reduction", better="band"),
    MetricSpec(name="cg_iterations", label="CG iterations", range=(0.0, None)),
)

CHARLIE_SPECS = (
    MetricSpec(name="gain", label="gain g of the cross blocks", range=(0.0, 1.0)),
    MetricSpec(name="heldout_ratio", label="held-out loss over before", range=(0.0, None), better="lower"),
    MetricSpec(name="control.phi", label="Φ of the control", range=(0.0, 1.0)),
    MetricSpec(name="control.loss_heldout", unit="nats", label="held-out loss, control", range=(0.0, None)),
    MetricSpec(name="branch.loss_heldout", unit="nats", label="held-out loss, branch at g = 0", range=(0.0, None)),
    MetricSpec(name="branch.phi", label="Φ of the branch at g = 0", range=(0.0, 1.0)),
)

OF_A_GARY = ("loss", "loss_heldout", "phi", "kappa", "grad_norm", "breakdown_pct", "recursion_depth")
"""What of a Gary's metrics stands in the run's own samples too, under its name; its drift as well."""
_MEANS = ("loss", "loss_heldout", "phi", "kappa", "grad_norm")
_CONSTELLATION_SPECS = (
    MetricSpec(name="pairwise_min", unit="rad", label="nearest two Garys", range=(0.0, 3.1416), better="band"),
    MetricSpec(name="pairwise_max", unit="rad", label="farthest two Garys", range=(0.0, 3.1416), better="band"),
    MetricSpec(name="frechet_variance", unit="rad²", label="variance of the Garys", range=(0.0, None)),
    MetricSpec(name="resultant", label="coherence of the Garys", range=(0.0, 1.0), better="band"),
    MetricSpec(name="vicarious", unit="rad", label="distance to what it follows", range=(0.0, 3.1416), better="lower"),
    MetricSpec(name="active", label="learns from text", range=(0.0, 1.0)),
)


def constellation_specs(optimizer: str, names: Sequence[str]) -> list[MetricSpec]:
    """The run's own metrics, means over the Garys where a Gary has the same, and each Gary's under its name."""
    own = specs_of(optimizer)
    means = [_named(each, f"mean {each.label} of the Garys") if each.name in _MEANS else each for each in own]
    kept = [each for each in own if each.name in OF_A_GARY or each.name.startswith("drift_")]
    several = [_named(each, f"{name} {each.label}", f"{name}.{each.name}") for name in names for each in kept]
    return [*means, *_CONSTELLATION_SPECS, *several]


def _named(spec: MetricSpec, label: str, name: str = "") -> MetricSpec:
    return msgspec.structs.replace(spec, label=label, name=name or spec.name)


def specs_of(optimizer: str) -> list[MetricSpec]:
    """The metrics of a run with that optimiser, by its name in the configuration."""
    return [*SPECS, *(_OF_NATURAL if optimizer == "natural" else ())]
