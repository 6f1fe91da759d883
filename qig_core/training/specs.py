"""How the trainer's metrics are to be shown: name, unit, label, range, reference lines. Shown only; never a limit."""

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


def specs_of(optimizer: str) -> list[MetricSpec]:
    """The metrics of a run with that optimiser, by its name in the configuration."""
    return [*SPECS, *(_OF_NATURAL if optimizer == "natural" else ())]
