"""What the measures cost: phi, the Jacobian, kappa, total correlation, and a probe beside two training runs.

    python benchmarks/measures.py [--only TEXT] [--gpt2-steps N] [--json FILE] [--readme]

Ours and what it is held against take turns in one process, one thread, least processor time a call. The overhead rows
time every step of a real run and every measurement in it, wall clock, all threads: seconds of measuring per second of
everything else since the first step, a probe's birth before it not. Exits 1
where a mark is missed. The overhead beside GPT-2 needs transformers, a dev dependency.
"""

import argparse
import itertools
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from qig_core.training.process import settle

settle()

import numpy as np  # noqa: E402  # settle() speaks to libraries that read their settings when they are loaded
import torch  # noqa: E402
from racing import FULL, MISSED, OURS, Row, into_readme, machine, race, seconds_text, write  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from scipy.linalg import cholesky  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from qig_core.measures.coupling import kappa_eff  # noqa: E402
from qig_core.measures.covariance import total_correlation  # noqa: E402
from qig_core.measures.integration import effective_information  # noqa: E402
from qig_core.measures.probe import Probe  # noqa: E402
from qig_core.measures.transition import equal_parts, transition  # noqa: E402
from qig_core.training import loop  # noqa: E402
from qig_core.training.config import PRESETS, build  # noqa: E402
from qig_core.training.corpus import default_corpus  # noqa: E402
from qig_core.training.kernel import distance_from_bc  # noqa: E402
from qig_core.training.kernel_jacobian import pass_jacobians  # noqa: E402
from qig_core.training.program import Solo  # noqa: E402
from qig_core.training.requests import Place, new  # noqa: E402
from qig_core.training.runs import begin  # noqa: E402
from qig_core.training.trainer import Trainer  # noqa: E402

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "measures.json"
PARTS = equal_parts(128, 8)
EPS = 0.1


def row(
    kernel: str,
    size: str,
    peer: str,
    ours: Callable[[], Any],
    theirs: Callable[[], Any] | None,
    mark: str,
    limit: float,
) -> Row:
    """A mark in "ms" is one on our own time, in "x" one on ours / theirs."""
    calls = {OURS: ours} if theirs is None else {OURS: ours, peer: theirs}
    best, _ = race(calls, FULL)
    peer_s = best.get(peer)
    ratio = None if peer_s is None else best[OURS] / peer_s
    value = ratio if mark == "x" else 1e3 * best[OURS]
    assert value is not None
    verdict = "no mark" if math.isinf(limit) else "met" if value <= limit else MISSED
    shown = None if math.isinf(limit) else f"≤ {limit:g} {mark}"
    return Row(
        kernel=kernel, size=size, peer=peer, ours_s=best[OURS], peer_s=peer_s, ratio=ratio, mark=shown, verdict=verdict
    )


def slogdet_per_cut(a: np.ndarray[Any, Any]) -> float:
    """phi_nats/K by one pair of determinants a cut."""
    best = math.inf
    for count in range(1, len(PARTS)):
        for side in itertools.combinations(range(1, len(PARTS)), count):
            s = [unit for i in side for unit in PARTS[i]]
            t = [unit for i in range(len(PARTS)) if i not in side for unit in PARTS[i]]
            nats = 0.0
            for rows, columns in ((s, t), (t, s)):
                block = a[np.ix_(rows, columns)] / EPS
                nats += 0.5 * np.linalg.slogdet(np.eye(len(rows)) + block @ block.T)[1]
            best = min(best, nats / min(len(s), len(t)))
    return best


def phi_rows() -> Iterator[Row]:
    maps = 0.1 * np.random.default_rng(0).standard_normal((8, 128, 128))
    found = effective_information(maps[0], PARTS, EPS)
    assert math.isclose(found.nats / found.dim, slogdet_per_cut(maps[0]), rel_tol=1e-10)
    one = maps[0]
    yield row(
        "phi, 127 cuts",
        "128 x 128",
        "slogdet a cut",
        lambda: effective_information(one, PARTS),
        lambda: slogdet_per_cut(one),
        "ms",
        20.0,
    )
    yield row(
        "phi, 127 cuts",
        "8 positions",
        "slogdet a cut, 8 times",
        lambda: effective_information(maps, PARTS),
        lambda: [slogdet_per_cut(each) for each in maps],
        "ms",
        math.inf,
    )


def jacobian_rows() -> Iterator[Row]:
    """Against d forward-mode products in one batch, of the same block at the same positions."""
    trainer = Trainer(build({}), default_corpus())
    kernel, probe = trainer.kernel, trainer.probe
    positions = probe._positions
    with torch.no_grad():
        seen, weights = kernel.observe(probe._tokens)[-1], kernel.block_weights()
        sequence, offset = positions[:, 0], positions[:, 1]
        x, whole = seen.before[sequence, offset], torch.eye(128)
        keys, values = seen.root_k[sequence], seen.values[sequence]
        earlier = (torch.arange(keys.shape[2]) < offset[:, None])[:, None]

        def block(points: Tensor) -> Tensor:
            """The pass at those positions, everything that their own state does not change taken as it is."""
            root_q, root_k, v = (each[:, :, 0] for each in kernel._qkv(points[:, None], weights))
            context = (keys @ root_q[..., None]).squeeze(-1)
            bc = torch.cat([context, (root_q * root_k).sum(-1, keepdim=True)], dim=-1)
            scores = -weights.kappa[:, None] * distance_from_bc(bc)
            scores = torch.cat([torch.where(earlier, scores[..., :-1], -math.inf), scores[..., -1:]], dim=-1)
            attention = scores.softmax(dim=-1)
            mixed = (attention[..., None, :-1] @ values).squeeze(2) + attention[..., -1:] * v
            mixed = points + mixed.flatten(1) @ weights.out.T
            return mixed + kernel._mlp(mixed, weights)

        def products() -> Tensor:
            def product(direction: Tensor) -> Tensor:
                return torch.func.jvp(block, (x,), (direction.expand_as(x),))[1]

            return torch.func.vmap(product)(whole)

        theirs = products().permute(1, 2, 0)
        torch.testing.assert_close(pass_jacobians(seen, positions, weights)[0], theirs, rtol=1e-3, atol=1e-4)
        yield row(
            "Jacobian of our kernel",
            "8 x 128 x 128",
            "128 products in one batch",
            lambda: pass_jacobians(seen, positions, weights),
            products,
            "x",
            1.3,
        )
    layer = nn.TransformerEncoderLayer(128, 8, 256, batch_first=True).eval()
    context = torch.randn(8, 64, 128)
    at = (torch.arange(8), torch.linspace(32, 63, 8).long())
    points = context[at]

    def foreign(states: Tensor) -> Tensor:
        return layer(context.index_put(at, states))[at]

    def foreign_products() -> Tensor:
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
                return torch.func.vmap(lambda v: torch.func.jvp(foreign, (points,), (v.expand_as(points),))[1])(whole)
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)

    with torch.no_grad():
        yield row(
            "Jacobian of a foreign layer",
            "8 x 128 x 128",
            "128 products in one batch",
            lambda: transition(foreign, points, whole, whole, elements=context.numel()),
            foreign_products,
            "x",
            1.3,
        )


def kappa_rows() -> Iterator[Row]:
    rng = np.random.default_rng(1)
    d = rng.uniform(0.1, 2.5, (8, 256, 256))
    kappas = np.geomspace(1.0, 128.0, 8)[:, None, None]
    causal = np.tri(256, dtype=bool)
    for name, mask in (("", None), (", causal", causal)):
        logits = -kappas * d + rng.standard_normal(d.shape)
        if mask is not None:
            logits = np.where(mask, logits, -np.inf)
        a = np.exp(logits - logits.max(-1, keepdims=True))
        a /= a.sum(-1, keepdims=True)
        warm = kappa_eff(a, d, mask).per_head
        near = tuple(None if each is None else 1.02 * each for each in warm)
        for how, start, limit in (("cold", None, 25.0), ("warm", warm, 5.0), ("warm, 2 % off", near, math.inf)):
            yield row(
                "kappa_eff",
                f"8 x 256 x 256{name}, {how}",
                "–",
                lambda a=a, m=mask, s=start: kappa_eff(a, d, m, warm=s),
                None,
                "ms",
                limit,
            )


def correlation_rows() -> Iterator[Row]:
    for dim in (64, 256, 1024):
        factor = np.random.default_rng(dim).standard_normal((dim, 2 * dim))
        cov = factor @ factor.T / dim
        yield row(
            "total correlation",
            f"d={dim}",
            "one Cholesky (numpy)",
            lambda c=cov: total_correlation(c),
            lambda c=cov: np.linalg.cholesky(c),
            "x",
            1.2,
        )
        yield row(
            "total correlation",
            f"d={dim}",
            "one Cholesky (scipy)",
            lambda c=cov: total_correlation(c),
            lambda c=cov: cholesky(c),
            "x",
            math.inf,
        )


def overhead_row(
    kernel: str, size: str, measured_s: float, rest_s: float, note: str, mark: str | None = "≤ 0.03 x"
) -> Row:
    ratio = measured_s / rest_s
    return Row(
        kernel=kernel,
        size=size,
        peer=note,
        ours_s=measured_s,
        peer_s=rest_s,
        ratio=ratio,
        mark=mark,
        verdict="no mark" if mark is None else "met" if ratio <= 0.03 else MISSED,
    )


def demo_rows(steps: int = 300) -> Iterator[Row]:
    """What `make demo` runs without a terminal: the default preset, 300 steps, records, guards and checkpoints too."""
    torch.set_num_threads(os.cpu_count() or 1)
    for preset in PRESETS:
        spent: list[float] = []
        with tempfile.TemporaryDirectory() as folder:
            started = begin(new({**PRESETS[preset], "steps": steps}, [], Place(runs=Path(folder))))
            assert isinstance(started.program, Solo)
            trainer = started.program.trainer
            trainer.probe.measure(trainer.kernel)  # torch compiles its forward-mode rules the first time
            measure = trainer.measure

            def timed(measure: Callable[[], Any] = measure, spent: list[float] = spent) -> Any:
                began = time.perf_counter()
                try:
                    return measure()
                finally:
                    spent.append(time.perf_counter() - began)

            trainer.measure = timed  # type: ignore[method-assign]
            began = time.perf_counter()
            loop.train(started)
            rest = time.perf_counter() - began - sum(spent)
        what, mark = f"the rest; {len(spent)} taken", "≤ 0.03 x" if preset == "default" else None
        yield overhead_row("our kernel's measures", f"{preset}, {steps} steps", sum(spent), rest, what, mark)


def gpt2_rows(steps: int) -> Iterator[Row]:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.set_num_threads(os.cpu_count() or 1)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    tokens = torch.randint(0, 50257, (4, 128))
    probe = Probe(model, torch.randint(0, 50257, (8, 32)))
    began = time.perf_counter()
    for step in range(steps):
        loss = model(tokens, labels=tokens).loss
        optimizer.zero_grad()
        loss.backward()
        probe(step)
        optimizer.step()
        print(f"\r  step {step + 1}/{steps}  {probe.spent().text()}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    spent = probe.spent()
    size = sum(p.numel() for p in model.parameters()) / 1e6
    total = time.perf_counter() - began
    assert spent.overhead is not None
    measured = total * spent.overhead / (1.0 + spent.overhead)
    yield overhead_row(
        f"probe beside GPT-2 ({size:.0f}M)",
        f"4 x 128 tokens, {steps} steps",
        measured,
        total - measured,
        f"the rest; {spent.num_measured - 1} taken, {spent.num_skipped} left out; birth {spent.birth_s:.1f} s",
    )


def show(rows: list[Row], console: Console) -> None:
    table = Table("measure", "size", "beside", "ours", "theirs", "ratio", "mark", "verdict")
    for each in rows:
        ratio = "–" if each.ratio is None else f"{each.ratio:.3g}"
        times = seconds_text(each.ours_s), seconds_text(each.peer_s)
        style = "bold red" if each.verdict == MISSED else None
        table.add_row(each.kernel, each.size, each.peer, *times, ratio, each.mark or "–", each.verdict, style=style)
    console.print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="TEXT", default="", help="groups whose name contains it")
    parser.add_argument("--gpt2-steps", type=int, default=100, help="training steps of the 124M model, about 3 s each")
    parser.add_argument("--json", type=Path, help=f"where to write the rows; default for a whole run: {RESULTS.name}")
    parser.add_argument("--readme", action="store_true", help="measure nothing: put the last whole run into README.md")
    given = parser.parse_args()
    if given.readme:
        into_readme("measures", RESULTS)
        return 0
    console = Console() if sys.stdout.isatty() else Console(width=160)
    facts = machine()
    for name, value in facts.items():
        console.print(f"{name}: {value}", highlight=False)
    groups: dict[str, Callable[[], Iterator[Row]]] = {
        "phi": phi_rows,
        "jacobian": jacobian_rows,
        "kappa": kappa_rows,
        "total correlation": correlation_rows,
        "demo": demo_rows,
        "gpt2": lambda: gpt2_rows(given.gpt2_steps),
    }
    began, rows = time.perf_counter(), []
    for name, group in groups.items():
        if given.only in name:
            print(f"{time.perf_counter() - began:6.1f} s  {name}", file=sys.stderr)
            torch.set_num_threads(1)
            rows += group()
    show(rows, console)
    facts |= {"load_after": round(os.getloadavg()[0], 2), "took_s": round(time.perf_counter() - began, 1)}
    console.print(f"{facts['took_s']} s; load {facts['load_before']} before, {facts['load_after']} after")
    path = given.json or (None if given.only else RESULTS)
    if path:
        write(path, facts, rows)
        console.print(f"written: {path}")
    return int(any(each.verdict == MISSED for each in rows))


if __name__ == "__main__":
    sys.exit(main())
