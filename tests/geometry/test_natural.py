"""The natural gradient: the true Fisher matrix, steps that know no coordinates, a trust region, refusals to the bit."""

import copy
import math
import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from qig_core.geometry.gauss_newton import FisherProduct, Likelihood, fisher_matrix, flat, output_metric, split
from qig_core.geometry.natural import Closure, NaturalGradient, conjugate_gradients

EXACT = {"damping": 0.0, "kl_max": math.inf, "cg_iterations": 400, "cg_tolerance": 0.0}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def mlp(seed: int = 0) -> nn.Sequential:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    with torch.no_grad():
        for index, p in enumerate(model.parameters()):
            p.copy_(0.7 * randn(*p.shape, seed=seed + index))
    return model


def loss_of(outputs: Tensor, target: Tensor, likelihood: Likelihood) -> Tensor:
    if likelihood == "categorical":
        return functional.cross_entropy(outputs, target)
    return 0.5 * (outputs - target).square().sum(dim=-1).mean()


def targets(rows: int, likelihood: Likelihood, seed: int = 9) -> Tensor:
    if likelihood == "categorical":
        return torch.randint(0, 3, (rows,), generator=torch.Generator().manual_seed(seed))
    return randn(rows, 3, seed=seed)


def set_gradient(parameters: list[Tensor], closure: Closure) -> Closure:
    """The gradient of the closure's loss, in `.grad`."""
    for p, gradient in zip(parameters, torch.autograd.grad(closure()[0], parameters), strict=True):
        p.grad = gradient
    return closure


def jacobian(model: nn.Module, x: Tensor) -> Tensor:
    """[N, K, P], by torch."""
    values = {name: p.detach() for name, p in model.named_parameters()}
    found = torch.func.jacrev(lambda p: torch.func.functional_call(model, p, (x,)))(values)
    return torch.cat([found[name].flatten(2) for name in values], dim=-1)


def test_the_fisher_matrix_of_logits_is_diag_p_minus_p_p() -> None:
    logits = randn(5).requires_grad_()
    p = logits.detach().softmax(-1)
    expected = torch.diag(p) - torch.outer(p, p)
    torch.testing.assert_close(fisher_matrix(logits, [logits]), expected, rtol=1e-12, atol=1e-15)
    v = randn(5, seed=1)
    torch.testing.assert_close(output_metric(logits.detach(), v, "categorical"), expected @ v)
    torch.testing.assert_close(output_metric(logits.detach(), v, "gaussian"), v, rtol=0.0, atol=0.0)


@pytest.mark.parametrize("likelihood", ["categorical", "gaussian"])
def test_a_product_is_that_with_the_mean_of_jacobian_metric_jacobian(likelihood: Likelihood) -> None:
    model, x = mlp(), randn(7, 3)
    outputs, parameters = model(x), list(model.parameters())
    j, p = jacobian(model, x), outputs.detach().softmax(-1)
    metric = torch.eye(3, dtype=torch.float64).expand(7, 3, 3)
    if likelihood == "categorical":
        metric = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    expected = (j.mT @ metric @ j).mean(0)
    torch.testing.assert_close(fisher_matrix(outputs, parameters, likelihood), expected, rtol=1e-10, atol=1e-13)
    product, v = FisherProduct(outputs, parameters, likelihood), randn(expected.shape[0], seed=3)
    torch.testing.assert_close(product(v), expected @ v, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(product.jacobian_product(v), j @ v, rtol=1e-10, atol=1e-13)


def test_a_jacobian_product_is_that_of_forward_mode() -> None:
    x, logits = randn(7, 3), randn(3, 4, seed=1)

    def outputs(w: Tensor) -> Tensor:
        return (x @ w).tanh().softmax(-1) * w.sin().sum()

    w, v = logits.requires_grad_(), randn(3, 4, seed=2)
    with warnings.catch_warnings():
        # torch compiles its forward-mode rules with the deprecated torch.jit.script the first time they are used.
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        forward = torch.func.jvp(outputs, (w.detach(),), (v,))[1]
    torch.testing.assert_close(FisherProduct(outputs(w), [w]).jacobian_product(v.flatten()), forward)


def test_the_matrix_is_the_true_fisher_and_not_the_empirical_one() -> None:
    """The expectation of score outer products is over the model's own labels, not over those of the data."""
    model, x, y = mlp(), randn(7, 3), targets(7, "categorical")
    parameters = list(model.parameters())
    outputs = model(x)
    log_p = outputs.log_softmax(-1)
    true, empirical = 0.0, 0.0
    for row in range(7):
        for label in range(3):
            score = flat(torch.autograd.grad(log_p[row, label], parameters, retain_graph=True))
            outer = torch.outer(score, score) / 7
            true = true + log_p[row, label].exp().detach() * outer
            empirical = empirical + (outer if label == y[row] else 0.0)
    fisher = fisher_matrix(outputs, parameters)
    torch.testing.assert_close(fisher, true, rtol=1e-10, atol=1e-13)
    assert (fisher - empirical).norm() > 0.1 * fisher.norm()


def test_a_parameter_that_the_outputs_do_not_depend_on_has_no_fisher_information() -> None:
    used, idle = randn(3).requires_grad_(), randn(2, seed=1).requires_grad_()
    f = fisher_matrix(used.sin()[None], [idle, used], "gaussian")
    assert torch.all(f[:2] == 0.0)
    torch.testing.assert_close(f[2:, 2:], torch.diag(used.detach().cos().square()))


@pytest.mark.parametrize("outputs", [torch.ones(3), torch.ones((), requires_grad=True), torch.ones(0, 3)])
def test_outputs_without_a_graph_or_rows_are_refused(outputs: Tensor) -> None:
    with pytest.raises(ValueError, match="outputs"):
        FisherProduct(outputs, [outputs])


def test_split_is_the_inverse_of_flat() -> None:
    tensors = [randn(2, 3), randn(1), randn(4, seed=1).view(2, 1, 2)]
    assert all(torch.equal(a, b) for a, b in zip(split(flat(tensors), tensors), tensors, strict=True))


def test_conjugate_gradients_solve_a_positive_definite_system_in_as_many_iterations_as_it_has_dimensions() -> None:
    root, b = randn(8, 8), randn(8, seed=1)
    a = root @ root.T + torch.eye(8, dtype=torch.float64)
    exact = torch.linalg.solve(a, b)
    found = conjugate_gradients(lambda v: a @ v, b, max_iterations=8, tolerance=0.0)
    torch.testing.assert_close(found.x, exact)
    early = conjugate_gradients(lambda v: a @ v, b, max_iterations=3)
    torch.testing.assert_close(early.product, a @ early.x)
    assert (found.iterations, early.iterations) == (8, 3)
    begun = conjugate_gradients(lambda v: a @ v, b, x0=exact + 1.0, max_iterations=8, tolerance=0.0)
    torch.testing.assert_close(begun.x, exact)


def test_conjugate_gradients_stop_where_there_is_no_curvature_and_where_progress_ends() -> None:
    a = torch.diag(torch.tensor([2.0, 0.0], dtype=torch.float64))
    solvable, unsolvable = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    assert conjugate_gradients(lambda v: a @ v, solvable, max_iterations=9).x.tolist() == [0.5, 0.0]
    x, _, iterations = conjugate_gradients(lambda v: a @ v, unsolvable, max_iterations=9)
    assert (x.tolist(), iterations) == ([0.0, 0.0], 0)
    spread = torch.logspace(0, -6, 300, dtype=torch.float64)
    patient = conjugate_gradients(lambda v: spread * v, torch.ones_like(spread), max_iterations=300, tolerance=0.0)
    early = conjugate_gradients(lambda v: spread * v, spread, max_iterations=300, tolerance=1e-2)
    assert early.iterations < 50 < patient.iterations


def test_one_step_at_damping_zero_solves_linear_least_squares() -> None:
    x, y = randn(40, 5) * torch.tensor([1.0, 10.0, 0.1, 3.0, 30.0]).double(), randn(40, 3, seed=1)
    w = randn(5, 3, seed=2).requires_grad_()

    def closure() -> tuple[Tensor, Tensor]:
        return loss_of(x @ w, y, "gaussian"), x @ w

    optimizer = NaturalGradient([w], likelihood="gaussian", **EXACT)
    step = optimizer.step(set_gradient([w], closure))
    torch.testing.assert_close(w.detach(), torch.linalg.lstsq(x, y).solution, rtol=1e-9, atol=1e-11)
    assert step.refused == ""
    assert step.ratio == pytest.approx(1.0, abs=1e-9)
    assert step.kl == pytest.approx(loss_of(x @ randn(5, 3, seed=2), x @ w.detach(), "gaussian").item())


@pytest.mark.parametrize("likelihood", ["categorical", "gaussian"])
def test_a_step_at_damping_zero_is_the_same_function_in_every_affine_parametrisation(likelihood: Likelihood) -> None:
    model, x, y = mlp(), randn(60, 3, seed=20), targets(60, likelihood)
    names, start = [name for name, _ in model.named_parameters()], [p.detach().clone() for p in model.parameters()]
    size = sum(p.numel() for p in start)

    def after(basis: Tensor, origin: Tensor) -> tuple[Tensor, float]:
        """The outputs after a step of phi, where theta = basis · phi + origin."""
        phi = torch.linalg.solve(basis, flat(start) - origin).requires_grad_()

        def closure() -> tuple[Tensor, Tensor]:
            values = dict(zip(names, split(basis @ phi + origin, start), strict=True))
            outputs = torch.func.functional_call(model, values, (x,))
            return loss_of(outputs, y, likelihood), outputs

        optimizer = NaturalGradient([phi], likelihood=likelihood, **(EXACT | {"kl_max": 1e-2}))
        step = optimizer.step(set_gradient([phi], closure))
        assert step.refused == ""
        outputs = closure()[1].detach()
        return outputs.log_softmax(-1) if likelihood == "categorical" else outputs, step.kl

    unit = torch.eye(size, dtype=torch.float64)
    plain, kl = after(unit, torch.zeros(size, dtype=torch.float64))
    other, other_kl = after(unit + 0.15 * randn(size, size, seed=5), randn(size, seed=6))
    with torch.no_grad():
        before = model(x).log_softmax(-1) if likelihood == "categorical" else model(x)
    assert (plain - before).abs().max() > 1e-2
    torch.testing.assert_close(other, plain, rtol=0.0, atol=1e-9)
    assert other_kl == pytest.approx(kl, rel=1e-9)


@pytest.mark.parametrize("kl_max", [1e-6, 1e-4, 1e-2])
def test_the_kl_of_a_step_stays_in_the_trust_region(kl_max: float) -> None:
    model, x, y = mlp(), randn(30, 3), targets(30, "categorical")
    parameters = list(model.parameters())

    def closure() -> tuple[Tensor, Tensor]:
        logits = model(x)
        return functional.cross_entropy(logits, y), logits

    before = [p.detach().clone() for p in parameters]
    fisher, old = fisher_matrix(model(x), parameters), model(x).detach().log_softmax(-1)
    step = NaturalGradient(parameters, damping=1e-4, kl_max=kl_max).step(set_gradient(parameters, closure))
    moved = flat([p.detach() - q for p, q in zip(parameters, before, strict=True)])
    assert step.kl == pytest.approx(kl_max, rel=1e-12)
    assert 0.5 * float(moved @ fisher @ moved) == pytest.approx(kl_max, rel=1e-9)
    new = model(x).detach().log_softmax(-1)
    actual = float((old.exp() * (old - new)).sum(-1).mean())
    assert actual == pytest.approx(kl_max, rel=10.0 * math.sqrt(kl_max))  # the next order of the expansion


def quadratic(theta: Tensor, share: float) -> Closure:
    """½ θ², of whose reductions only a share is there: the ratio of a full step."""

    def closure() -> tuple[Tensor, Tensor]:
        return share * 0.5 * theta.square().sum(), theta[None]

    return closure


def one_parameter(**settings: float) -> tuple[Tensor, NaturalGradient]:
    theta = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
    theta.grad = theta.detach().clone()
    return theta, NaturalGradient([theta], likelihood="gaussian", kl_max=math.inf, **settings)


@pytest.mark.parametrize(("share", "factor"), [(0.1, 1.5), (0.24, 1.5), (0.5, 1.0), (0.76, 1 / 1.5), (1.0, 1 / 1.5)])
def test_damping_rises_where_the_model_promised_too_much_and_falls_where_it_kept_its_word(
    share: float, factor: float
) -> None:
    theta, optimizer = one_parameter(damping=0.5)
    step = optimizer.step(quadratic(theta, share))
    assert theta.item() == pytest.approx(2.0 / 3.0)
    assert step.ratio == pytest.approx(share)
    assert optimizer.damping == pytest.approx(0.5 * factor)


def test_damping_falls_no_lower_than_it_may_and_rises_from_zero() -> None:
    theta, optimizer = one_parameter(damping=0.011, damping_min=0.01)
    optimizer.step(quadratic(theta, 1.0))
    assert optimizer.damping == 0.01
    theta, optimizer = one_parameter(damping=0.0, damping_min=0.01)
    optimizer.step(quadratic(theta, 1.0))
    assert optimizer.damping == 0.0
    theta.grad = torch.ones_like(theta)  # which at the minimum is wrong
    assert optimizer.step(quadratic(theta, 1.0)).refused == "the loss would rise"
    assert optimizer.damping == pytest.approx(0.04)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 3.0])
def test_a_step_that_would_raise_the_loss_is_refused_and_the_parameters_are_restored_to_the_bit(bad: float) -> None:
    theta, optimizer = one_parameter(damping=0.5, max_backtracks=2, warm_start=0.9)
    before, seen = theta.detach().clone(), []

    def closure() -> tuple[Tensor, Tensor]:
        seen.append(theta.item())
        loss = 0.5 * theta.square().sum()
        return (loss if torch.equal(theta.detach(), before) else loss * 0.0 + bad), theta[None]

    step = optimizer.step(closure)
    assert torch.equal(theta.detach(), before)
    assert (step.refused, step.loss, step.kl, step.backtracks) == ("the loss would rise", 2.0, 0.0, 2)
    assert seen == pytest.approx([2.0, 2.0 - 4.0 / 3.0, 2.0 - 2.0 / 3.0, 2.0 - 1.0 / 3.0])
    assert optimizer.damping == 2.0
    assert optimizer.state_dict()["state"] == {}


def test_a_step_that_is_too_long_is_halved_until_the_loss_falls() -> None:
    theta, optimizer = one_parameter(damping=0.5)

    def closure() -> tuple[Tensor, Tensor]:
        wall = 100.0 * (theta.detach() < 1.5).sum()
        return 0.5 * theta.square().sum() + wall, theta[None]

    step = optimizer.step(closure)
    assert step.backtracks == 2
    assert theta.item() == pytest.approx(2.0 - 1.0 / 3.0)
    assert step.kl == pytest.approx(0.5 / 9.0)
    assert step.ratio < 0.0
    assert optimizer.damping == pytest.approx(0.75)


def test_a_closure_that_raises_finds_the_parameters_restored() -> None:
    theta, optimizer = one_parameter(damping=0.5)

    def closure() -> tuple[Tensor, Tensor]:
        if theta.item() != 2.0:
            raise KeyError("the data ended")
        return 0.5 * theta.square().sum(), theta[None]

    with pytest.raises(KeyError, match="the data ended"):
        optimizer.step(closure)
    assert theta.item() == 2.0


@pytest.mark.parametrize("where", ["gradient", "loss", "outputs"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_numbers_that_are_not_finite_are_refused_and_nothing_is_touched(where: str, bad: float) -> None:
    model, x, y = mlp(), randn(5, 3), targets(5, "categorical")
    parameters = list(model.parameters())

    def closure() -> tuple[Tensor, Tensor]:
        logits = model(x)
        loss = functional.cross_entropy(logits, y)
        return loss * bad if where == "loss" else loss, logits * bad if where == "outputs" else logits

    for p in parameters:
        p.grad = torch.ones_like(p)
    if where == "gradient" and parameters[-1].grad is not None:
        parameters[-1].grad[1] = bad
    before, optimizer = copy.deepcopy(model.state_dict()), NaturalGradient(parameters, damping=0.3)
    step = optimizer.step(closure)
    assert "not finite" in step.refused
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert optimizer.damping == 0.3


def test_a_parameter_without_a_gradient_stays_as_it_is() -> None:
    model, x, y = mlp(), randn(5, 3), targets(5, "categorical")

    def closure() -> tuple[Tensor, Tensor]:
        return functional.cross_entropy(model(x), y), model(x)

    optimizer = NaturalGradient(model.parameters())
    assert optimizer.step(closure).refused == "no gradient"
    set_gradient([model[0].weight], closure)
    before = copy.deepcopy(model.state_dict())
    assert optimizer.step(closure).refused == ""
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"0.weight"}


def test_curvature_may_come_from_some_rows_of_the_batch() -> None:
    x, y, start = randn(40, 2), randn(40, 1, seed=1), randn(2, 1, seed=2)

    def stepped(rows: int | None) -> Tensor:
        w = start.clone().requires_grad_()

        def closure() -> tuple[Tensor, Tensor]:
            return loss_of(x @ w, y, "gaussian"), x @ w

        optimizer = NaturalGradient([w], likelihood="gaussian", **EXACT)
        optimizer.step(set_gradient([w], closure), None if rows is None else (lambda: x[:rows] @ w))
        return w.detach()

    torch.testing.assert_close(stepped(40), stepped(None))
    gradient = x.T @ (x @ start - y) / 40
    expected = start - torch.linalg.solve(x[:10].T @ x[:10] / 10, gradient)
    torch.testing.assert_close(stepped(10), expected)


def badly_conditioned() -> tuple[Tensor, Tensor]:
    """Logistic regression on features whose sizes span three decades, and which are mixed."""
    x = randn(200, 8) * torch.logspace(-2, 1, 8, dtype=torch.float64) @ torch.linalg.qr(randn(8, 8, seed=1))[0]
    y = (x @ torch.linalg.lstsq(x, randn(200, 3, seed=2) + 3.0 * x.sign()[:, :3]).solution).argmax(-1)
    flipped = torch.rand(200, generator=torch.Generator().manual_seed(3)) < 0.2
    return x, torch.where(flipped, (y + 1) % 3, y)


def test_it_beats_a_tuned_adamw_step_for_step_on_a_badly_conditioned_problem() -> None:
    x, y = badly_conditioned()

    def final_loss(make: Callable[[list[Tensor]], torch.optim.Optimizer]) -> float:
        w = torch.zeros(8, 3, dtype=torch.float64, requires_grad=True)
        optimizer = make([w])

        def closure() -> tuple[Tensor, Tensor]:
            return functional.cross_entropy(x @ w, y), x @ w

        for _ in range(30):
            set_gradient([w], closure)
            if isinstance(optimizer, NaturalGradient):
                optimizer.step(closure)
            else:
                optimizer.step()
        return closure()[0].item()

    rates = [10.0**e for e in (-3.0, -2.5, -2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0)]
    adamw = {rate: final_loss(lambda p, lr=rate: torch.optim.AdamW(p, lr=lr, weight_decay=0.0)) for rate in rates}
    best = min(adamw, key=adamw.__getitem__)
    assert rates[0] < best < rates[-1]
    optimum = final_loss(lambda p: NaturalGradient(p, **EXACT))
    ours = final_loss(lambda p: NaturalGradient(p, kl_max=0.1))
    assert ours - optimum < 0.1 * (adamw[best] - optimum)


@pytest.mark.parametrize("warm_start", [0.0, 0.9])
def test_what_goes_on_from_a_state_does_so_to_the_bit(warm_start: float) -> None:
    x, y = randn(50, 3), targets(50, "categorical")

    def born() -> tuple[nn.Module, NaturalGradient]:
        model = mlp()
        return model, NaturalGradient(model.parameters(), warm_start=warm_start, cg_iterations=3, lr=0.5)

    def train(model: nn.Module, optimizer: NaturalGradient, steps: range) -> None:
        for step in steps:
            rows = slice(10 * (step % 5), 10 * (step % 5) + 10)

            def closure(rows: slice = rows) -> tuple[Tensor, Tensor]:
                logits = model(x[rows])
                return functional.cross_entropy(logits, y[rows]), logits

            optimizer.step(set_gradient(list(model.parameters()), closure))

    whole, optimizer = born()
    train(whole, optimizer, range(12))
    first, first_optimizer = born()
    train(first, first_optimizer, range(7))
    second, second_optimizer = born()
    second.load_state_dict(first.state_dict())
    second_optimizer.load_state_dict(copy.deepcopy(first_optimizer.state_dict()))
    assert second_optimizer.last == first_optimizer.last
    assert second_optimizer.damping == first_optimizer.damping != 1e-2
    train(second, second_optimizer, range(7, 12))
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), second.parameters(), strict=True))
    assert second_optimizer.last == optimizer.last


def test_the_example_of_the_docstring_learns() -> None:
    model, x, y = mlp(), randn(50, 3), targets(50, "categorical")
    optimizer = NaturalGradient(model.parameters(), likelihood="categorical")
    losses = []
    for _ in range(20):

        def closure() -> tuple[Tensor, Tensor]:
            logits = model(x)
            return functional.cross_entropy(logits, y), logits

        optimizer.zero_grad()
        closure()[0].backward()
        losses.append(optimizer.step(closure).loss)
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 0.1


@pytest.mark.parametrize(
    "bad",
    [
        {"lr": 0.0}, {"damping": -1.0}, {"damping": math.nan}, {"damping_min": 0.0}, {"kl_max": 0.0},
        {"cg_iterations": 0}, {"cg_tolerance": -1.0}, {"warm_start": 1.5}, {"max_backtracks": -1},
        {"likelihood": "poisson"},
    ],
)  # fmt: skip
def test_a_setting_out_of_range_is_refused_by_name(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        NaturalGradient([torch.zeros(2, requires_grad=True)], **bad)


def test_groups_and_dtypes_that_cannot_be_solved_for_together_are_refused() -> None:
    one, other = torch.zeros(2, requires_grad=True), torch.zeros(2, dtype=torch.float64, requires_grad=True)
    with pytest.raises(ValueError, match="dtype"):
        NaturalGradient([one, other])
    with pytest.raises(ValueError, match="one group"):
        NaturalGradient([{"params": [one]}, {"params": [torch.zeros(1, requires_grad=True)]}])
