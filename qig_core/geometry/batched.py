"""The operations of simplex.py for torch: many points at once, CPU or CUDA, float32 or float64, with gradients.

Same names, coordinates and results as there; the last axis is the point, all axes before it are batch and broadcast.
Shapes, dtypes and devices are checked at every call. Values are not, because looking at them makes a GPU wait: points
must sum to 1 to rounding, and `check` is there to say so.

Gradients are first derivatives and finite everywhere. Where none exists the convention is 0: with respect to an entry
that is 0 (√p has no slope there), and of a distance between equal points.

Without gradients, fisher_rao_distance and the three steps work a few rows at a time, so that temporaries stay in the
cache of a CPU. On CUDA a large call of theirs is one compiled kernel, or the same rows in eager mode where nothing can
be compiled.
"""

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from qig_core.errors import SimplexError
from qig_core.geometry.karcher import KarcherMean, norm

Scalar: TypeAlias = float | Tensor
Scratch: TypeAlias = Tensor | None
Core: TypeAlias = Callable[..., Tensor]
"""(p [..., K], q [..., K], a scalar, a, b, c) -> [..., K] or [...], and all that is ever compiled or differentiated.

a, b and c are scratch shaped like p to compute in, or None to allocate. The result is c where it has c's shape; c may
be p or q, so it is written only after they have been read.
"""

BOUNDARY_SHARE = 0.99
"""How much of the way to the edge of the orthant natural_gradient_step may go."""

_SUM_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-5}
_MEAN_TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6}
# Measured at K = 64: 2 000 to 4 000 rows are best on a CPU with 1 MiB of L2; a GPU needs enough rows to fill it.
_CHUNK_BYTES = {"cpu": 2**20, "cuda": 2**26}
# Below this many entries a GPU's launches cost more than its memory, and compiling is not worth its seconds.
_COMPILE_ENTRIES = 2**20
_COMPILED: dict[Core, Core | None] = {}
"""The compiled cores, each made at first use; None once that has failed."""


def check(p: Tensor) -> None:
    """Look at the values of p, which no other function here does. On a GPU this waits for all work before it.

    Args:
        p: [..., K], to be non-negative, finite, last axis summing to 1 within 1e-6 (float64) or 1e-5 (float32).

    Raises:
        SimplexError: naming the first bad row and by how much it is off.
    """
    _same_kind(p=p)
    total = p.sum(dim=-1, dtype=torch.float64)
    lowest, off, limit = p.amin(dim=-1), (total - 1.0).abs(), _SUM_TOLERANCE[p.dtype]
    bad = ~((lowest >= 0.0) & (off <= limit))
    if not bool(bad.any()):
        return
    row = tuple(int(i) for i in bad.nonzero()[0])
    name = f"p[{', '.join(map(str, row))}]" if row else "p"
    if not bool(torch.isfinite(p[row]).all()):
        raise SimplexError(f"{name} holds a value that is not finite")
    if float(lowest[row]) < 0.0:
        raise SimplexError(f"{name} is negative somewhere: {float(lowest[row]):.3g}")
    raise SimplexError(f"{name} sums to {float(total[row]):.9g}, off by {float(off[row]):.3g} (limit {limit:g})")


def fisher_rao_distance(p: Tensor, q: Tensor) -> Tensor:
    """Geodesic distance on the probability simplex: 2 arccos(Σ_k sqrt(p_k q_k)).

    Args:
        p, q: [..., K] on the simplex; leading axes broadcast.

    Returns:
        [...], radians, in [0, π]. The gradient is −(√(q_i/p_i) − cos θ)/sin θ, θ = d/2; it is 0 for p_i = 0 and for
        p = q.

    Raises:
        SimplexError: shapes that do not match, or dtypes or devices that differ or are not supported.

    Source: Rao 1945; evaluated as 4 atan2(‖√p − √q‖, ‖√p + √q‖), exact near 0.
    """
    shape = _same_kind(p=p, q=q)
    return _by_rows(_distance, p.expand(shape), q.expand(shape), 0.0, shape[:-1])


def geodesic(p: Tensor, q: Tensor, t: float | Tensor) -> Tensor:
    """The point at share t of the Fisher–Rao geodesic from p to q, at constant speed: d(p, γ(t)) = t d(p, q).

    γ(t) = ((sin((1−t)θ) √p + sin(tθ) √q) / sin θ)², θ = d(p, q)/2.

    Args:
        p, q: [..., K] on the simplex.
        t: in [0, 1]: a number, or a tensor [...] whose values are clamped to it.

    Raises:
        SimplexError: as fisher_rao_distance, or a number t outside [0, 1], where the curve would leave the orthant.
    """
    _same_kind(p=p, q=q)
    if isinstance(t, Tensor):
        t = t.to(p).clamp(0.0, 1.0).unsqueeze(-1)
    else:
        _share(t, "t")
    return _geodesic(p, q, t)


def exp(p: Tensor, v: Tensor) -> Tensor:
    """The end of the geodesic that leaves p along v and is ‖v‖ radians long: (√p cos(r/2) + v/r sin(r/2))², r = ‖v‖.

    Args:
        p: [..., K] on the simplex.
        v: [..., K], tangent in square-root coordinates: v · √p = 0 (the rest is projected away), Euclidean norm =
            Fisher–Rao length in radians.

    Returns:
        [..., K] on the simplex. Where the end lies outside the orthant, its negative square roots are set to 0 and the
        others renormalised: simplex.exp refuses there, which would make a GPU wait. NaN where none is positive.

    Raises:
        SimplexError: as fisher_rao_distance.
    """
    _same_kind(p=p, v=v)
    u = _root(p)
    tangent = v - (u * v).sum(dim=-1, keepdim=True) * u
    half = 0.5 * norm(tangent)
    return _square((torch.cos(half) * u + 0.5 * torch.sinc(half / math.pi) * tangent).clamp_min(0.0))


def log(p: Tensor, q: Tensor) -> Tensor:
    """The tangent v at p with exp(p, v) = q: direction of q, length d(p, q).

    Args:
        p, q: [..., K] on the simplex.

    Returns:
        [..., K] in square-root coordinates (see exp), radians; 0 where p = q.

    Raises:
        SimplexError: as fisher_rao_distance.
    """
    _same_kind(p=p, q=q)
    u, w = _root(p), _root(q)
    difference = w - u
    across = difference - (difference * u).sum(dim=-1, keepdim=True) * u
    # ‖across‖ = sin θ, so that the length comes out as 2θ without a division by 0.
    return across * (2.0 / torch.sinc(_angle(u, w) / math.pi))


def natural_gradient(p: Tensor, grad: Tensor) -> Tensor:
    """The Fisher–Rao gradient of f as a velocity of p: p_i (g_i − Σ_j p_j g_j), g = ∂f/∂p.

    Args:
        p: [..., K] on the simplex.
        grad: [..., K], finite; a constant added to a row changes nothing.

    Returns:
        [..., K], each row summing to 0. The same vector in square-root coordinates (see exp): √p_i (g_i − Σ_j p_j g_j).

    Raises:
        SimplexError: as fisher_rao_distance.

    Source: Amari 1998.
    """
    _same_kind(p=p, grad=grad)
    return p * (grad - (p * grad).sum(dim=-1, keepdim=True))


def frechet_mean(
    points: Tensor, weights: Tensor | None = None, tol: float | None = None, *, max_iterations: int = 10_000
) -> Tensor:
    """The Karcher mean argmin_m Σ_i w_i d(m, p_i)², by the fixed point m <- exp_m(Σ_i w_i log_m p_i).

    Args:
        points: [..., N, K] on the simplex.
        weights: [..., N], non-negative, normalised here; None for equal weights.
        tol: stop when every ‖Σ_i w_i log_m p_i‖ ≤ tol, radians; 1e-12 in float64 and 1e-6 in float32 if None.

    Returns:
        [..., K], one mean per leading index. The gradient is that of the exact mean (the implicit function theorem at
        the fixed point, one K x K system a mean), not of the iterations; a second derivative is refused.

    Raises:
        SimplexError: as fisher_rao_distance, or no points.
        QigError: no convergence in max_iterations.

    Source: Karcher 1977; Afsari 2011.
    """
    if points.ndim < 2 or points.shape[-2] == 0:
        raise SimplexError(f"points must be [..., N, K] with N ≥ 1, not {tuple(points.shape)}")
    _same_kind(points=points)
    lead, (count, size) = points.shape[:-2], points.shape[-2:]
    if weights is None:
        weights = points.new_ones(count)
    if _same_kind(**{"points without their last axis": points[..., 0], "weights": weights}) != points.shape[:-1]:
        raise SimplexError(
            f"weights {tuple(weights.shape)} do not fit points {tuple(points.shape)}: [..., N] is needed"
        )
    share = (weights / weights.sum(dim=-1, keepdim=True)).expand(*lead, count).reshape(-1, count).double()
    roots = _root(points / points.sum(dim=-1, keepdim=True)).reshape(-1, count, size).double()
    limit = _MEAN_TOLERANCE[points.dtype] if tol is None else tol
    mean = KarcherMean.apply(roots, share, limit, max_iterations)  # type: ignore[no-untyped-call]  # torch's
    return _square(mean).to(points.dtype).reshape(*lead, size)


def geodesic_step(
    p: Tensor, target: Tensor, share: float, *, out: Tensor | None = None, chunk: int | None = None
) -> Tensor:
    """Move every p the given share of the way to its target: geodesic(p, target, share).

    Args:
        p: [..., K] on the simplex.
        target: [..., K] on the simplex, broadcast to p.
        share: in [0, 1]; 0 gives p, 1 the target.
        out: where the result goes, contiguous, shaped like p; it may be p or target itself. Not with gradients.
        chunk: rows done at a time; None for what fits the cache.

    Returns:
        [..., K]; out if given. Without gradients the result and 2 chunks are all the memory it takes.

    Raises:
        SimplexError: as fisher_rao_distance, a share outside [0, 1], or an out that does not fit.
    """
    _share(share, "share")
    return _step(_geodesic, p, target, share, "target", out, chunk)


def natural_gradient_step(
    p: Tensor, grad: Tensor, rate: float, *, out: Tensor | None = None, chunk: int | None = None
) -> Tensor:
    """The exponential map along −rate times the natural gradient: exp(p, v), v_i = −rate √p_i (g_i − Σ_j p_j g_j).

    With a_i = g_i − Σ_j p_j g_j, σ² = Σ_i p_i a_i² and h = rate σ/2 this is p_i (cos h − a_i/σ sin h)², a step of 2h
    radians. It meets the edge of the orthant at tan h = σ / max a_i over p_i > 0; a step that would go further than
    BOUNDARY_SHARE of that h is shortened to it, in its row alone, so a positive entry stays positive and 0 stays 0.

    Args:
        p: [..., K] on the simplex.
        grad: [..., K], ∂f/∂p, finite, broadcast to p.
        rate: at least 0; to climb, negate grad.
        out, chunk: as geodesic_step.

    Returns and raises as geodesic_step.

    Source: Amari 1998.
    """
    _rate(rate)
    return _step(_natural, p, grad, rate, "grad", out, chunk)


def exponentiated_gradient_step(
    p: Tensor, grad: Tensor, rate: float, *, out: Tensor | None = None, chunk: int | None = None
) -> Tensor:
    """p_i exp(−rate g_i) / Z: to first order in rate the natural gradient step, along a straight line in log p.

    The largest exponent over p_i > 0 is taken out first, so nothing overflows; 0 stays 0.

    Arguments, returns and errors as natural_gradient_step.

    Source: Kivinen & Warmuth 1997.
    """
    _rate(rate)
    return _step(_exponentiated, p, grad, rate, "grad", out, chunk)


def _distance(p: Tensor, q: Tensor, _: Scalar, a: Scratch = None, b: Scratch = None, c: Scratch = None) -> Tensor:
    return 2.0 * _angle(_root(p, a), _root(q, b), c).squeeze(-1)


def _geodesic(p: Tensor, q: Tensor, share: Scalar, a: Scratch = None, b: Scratch = None, c: Scratch = None) -> Tensor:
    if _recorded(p, q):
        u, v = _root(p), _root(q)
        theta = _angle(u, v) / math.pi
        # sinc keeps both weights and their slopes exact when the points coincide.
        whole = torch.sinc(theta)
        left = (1.0 - share) * torch.sinc((1.0 - share) * theta) / whole
        right = share * torch.sinc(share * theta) / whole
        return _square(u * left + v * right)
    # (l √p + r √q)² with one root: the weights hang on θ² alone, so the digits that arccos loses near 0 are not missed.
    root = torch.sqrt(torch.mul(p, q, out=a), out=a)
    cosine = root.sum(dim=-1, keepdim=True).clamp_(max=1.0)
    theta, sine = torch.acos(cosine), ((1.0 - cosine) * (1.0 + cosine)).sqrt_()
    same = sine == 0.0
    left = torch.where(same, 1.0 - share, torch.sin((1.0 - share) * theta) / sine)
    right = torch.where(same, share, torch.sin(share * theta) / sine)
    moved = torch.addcmul(torch.mul(root, 2.0 * left * right, out=a), p, left * left, out=a)
    return _normalised(torch.addcmul(moved, q, right * right, out=c), c)


def _natural(p: Tensor, grad: Tensor, rate: Scalar, a: Scratch = None, b: Scratch = None, c: Scratch = None) -> Tensor:
    above = torch.sub(grad, torch.mul(p, grad, out=a).sum(dim=-1, keepdim=True), out=a)
    above = torch.mul(above, torch.sign(p, out=b), out=a)  # where p is 0 nothing moves, and nothing limits the step
    spread = _root(torch.mul(p, torch.square(above, out=b), out=b).sum(dim=-1, keepdim=True))
    peak = above.amax(dim=-1, keepdim=True)
    # The longest half angle over σ, with no 0/0, neither here nor in its derivative.
    edge = torch.atan2(spread, peak.masked_fill(peak <= 0.0, 1.0)) / spread.masked_fill(spread == 0.0, 1.0)
    pace = torch.where(spread > 0.0, BOUNDARY_SHARE * edge, 0.5 * rate).clamp(max=0.5 * rate)
    half = pace * spread
    end = torch.sub(torch.cos(half), torch.mul(above, pace * torch.sinc(half / math.pi), out=a), out=a)
    return _normalised(torch.mul(p, torch.square(end, out=a), out=c), c)


def _exponentiated(
    p: Tensor, grad: Tensor, rate: Scalar, a: Scratch = None, b: Scratch = None, c: Scratch = None
) -> Tensor:
    exponent = torch.where(p > 0.0, torch.mul(grad, -rate, out=a), p.new_full((), -math.inf), out=b)
    raised = torch.exp(torch.sub(exponent, exponent.amax(dim=-1, keepdim=True), out=b), out=b)
    return _normalised(torch.mul(p, raised, out=c), c)


def _step(
    core: Core, p: Tensor, other: Tensor, scalar: float, name: str, out: Tensor | None, chunk: int | None
) -> Tensor:
    """core on p and other broadcast to p, after the checks that all three steps share."""
    if _same_kind(p=p, **{name: other}) != p.shape:
        raise SimplexError(f"{name} {tuple(other.shape)} does not broadcast to p {tuple(p.shape)}")
    if chunk is not None and chunk < 1:
        raise SimplexError(f"chunk must be at least 1 row, not {chunk}")
    if out is not None:
        if out.shape != p.shape or out.dtype != p.dtype or out.device != p.device or not out.is_contiguous():
            raise SimplexError(f"out must be contiguous and shaped like p, {tuple(p.shape)} {p.dtype} on {p.device}")
        if _recorded(p, other, out):
            raise SimplexError("out cannot be used where a gradient is recorded: call it under torch.no_grad()")
        _no_partial_overlap(out, p, "p")
        _no_partial_overlap(out, other, name)
    return _by_rows(core, p, other.expand(p.shape), scalar, p.shape, out, chunk)


def _by_rows(
    core: Core,
    p: Tensor,
    q: Tensor,
    scalar: float,
    shape: torch.Size,
    out: Tensor | None = None,
    chunk: int | None = None,
) -> Tensor:
    """core(p, q, scalar) written into out a few rows at a time; at once where a graph is wanted."""
    if _recorded(p, q):
        return core(p, q, scalar)
    size = p.shape[-1]
    rows = p.numel() // size
    if out is None:
        out = torch.empty(shape, dtype=p.dtype, device=p.device)
    flat = out.view(rows, *shape[p.ndim - 1 :])
    # An argument that is out must be the same object too, or the compiler would see two that overlap.
    p, q = (flat if x.data_ptr() == out.data_ptr() else x.reshape(rows, size) for x in (p, q))
    if chunk is None and p.is_cuda and p.numel() >= _COMPILE_ENTRIES and _fused(core, p, q, scalar, flat):
        return out
    stride = chunk or max(1, _CHUNK_BYTES.get(p.device.type, _CHUNK_BYTES["cuda"]) // (size * p.element_size()))
    # Three, of which the result's own rows are one where they have the shape.
    scratch = torch.empty((4 - flat.ndim, min(stride, rows), size), dtype=p.dtype, device=p.device)
    for start in range(0, rows, stride):
        part = flat[start : start + stride]
        a, b, *c = scratch[:, : len(part)]
        result = core(p[start : start + stride], q[start : start + stride], scalar, a, b, c[0] if c else part)
        if c:
            part.copy_(result)
    return out


def _fused(core: Core, p: Tensor, q: Tensor, scalar: float, out: Tensor) -> bool:
    """out <- core(p, q, scalar) as one compiled kernel; False, now and from now on, where that cannot be had.

    The scalar travels as a tensor: a number would be compiled in, once for every learning rate.
    """
    if core not in _COMPILED:
        _COMPILED[core] = torch.compile(core)
    compiled = _COMPILED[core]
    if compiled is None:
        return False
    number = torch.full((), scalar, dtype=p.dtype, device=p.device)
    try:
        with torch.no_grad():
            result = compiled(p, q, number, None, None, out if out.ndim == 2 else None)
    except torch.OutOfMemoryError:
        raise
    except (ImportError, RuntimeError):  # no Triton, no C compiler, or a version that cannot trace this
        _COMPILED[core] = None
        return False
    if result is not out:
        out.copy_(result)
    return True


def _recorded(*tensors: Tensor) -> bool:
    """Whether autograd records what is done with any of them."""
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)


def _root(p: Tensor, out: Scratch = None) -> Tensor:
    """√p; where a gradient is recorded, with slope 0 instead of ∞ at 0."""
    if not _recorded(p):
        return torch.sqrt(p, out=out)
    zero = p == 0.0
    return p.masked_fill(zero, 1.0).sqrt().masked_fill(zero, 0.0)


def _angle(u: Tensor, v: Tensor, out: Scratch = None) -> Tensor:
    """Angle between unit vectors, radians, exact near 0; [..., 1]."""
    chord = norm(torch.sub(u, v, out=out))
    return 2.0 * torch.atan2(chord, norm(torch.add(u, v, out=out)))


def _square(root: Tensor, out: Scratch = None) -> Tensor:
    return _normalised(torch.square(root, out=out), out)


def _normalised(x: Tensor, out: Scratch = None) -> Tensor:
    return torch.div(x, x.sum(dim=-1, keepdim=True), out=out)


def _share(t: float, name: str) -> None:
    if not 0.0 <= t <= 1.0:
        raise SimplexError(f"{name} must lie in [0, 1], not {t}: beyond its ends a geodesic may leave the simplex")


def _rate(rate: float) -> None:
    if not 0.0 <= rate < math.inf:
        raise SimplexError(f"rate must be finite and at least 0, not {rate}; to climb, negate grad")


def _same_kind(**tensors: Tensor) -> torch.Size:
    """The common shape of tensors [..., K] of one dtype, device and K; SimplexError otherwise."""
    (first, head), *others = tensors.items()
    if head.ndim == 0 or head.shape[-1] == 0:
        raise SimplexError(f"{first} has shape {tuple(head.shape)}: a last axis of probabilities is needed")
    if head.dtype not in _SUM_TOLERANCE:
        raise SimplexError(f"{first} is {head.dtype}: float32 or float64 is needed")
    shape = head.shape
    for name, tensor in others:
        if tensor.dtype != head.dtype or tensor.device != head.device:
            raise SimplexError(f"{first} is {head.dtype} on {head.device}, {name} {tensor.dtype} on {tensor.device}")
        if tensor.shape[-1:] != head.shape[-1:]:
            raise SimplexError(f"{first} {tuple(head.shape)} and {name} {tuple(tensor.shape)}: last axes must be equal")
        try:
            shape = torch.broadcast_shapes(shape, tensor.shape)
        except RuntimeError:
            raise SimplexError(
                f"{first} {tuple(head.shape)} and {name} {tuple(tensor.shape)} do not broadcast"
            ) from None
    return shape


def _no_partial_overlap(out: Tensor, x: Tensor, name: str) -> None:
    """Refuse an out that shares memory with x without being x: rows would be overwritten before they are read."""
    same = out.data_ptr() == x.data_ptr() and out.shape == x.shape and x.is_contiguous()
    span = sum((n - 1) * stride for n, stride in zip(x.shape, x.stride(), strict=True)) + 1
    before = x.data_ptr() + span * x.element_size() <= out.data_ptr()
    after = out.data_ptr() + out.numel() * out.element_size() <= x.data_ptr()
    if not (same or before or after or out.numel() == 0):
        raise SimplexError(f"out overlaps {name} in part: it must be {name} itself or separate memory")
