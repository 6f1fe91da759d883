"""Text that a kernel writes: drawn from its own distribution, and a pure function of weights, prompt, seed and step."""

import copy
import math
import random

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from qig_core.errors import QigError
from qig_core.training.config import KernelConfig
from qig_core.training.kernel import Kernel
from qig_core.training.noise import drawn, normals, uniforms
from qig_core.training.writing import generate

TINY = KernelConfig(width=32, heads=4, context=32, passes=3)
PROMPT = torch.tensor(list(b"The value of "))


@pytest.fixture(scope="module")
def kernel() -> Kernel:
    """Random, but as sure of itself as a trained one."""
    found = Kernel(TINY)
    with torch.no_grad():
        found.head.mul_(4.0)
    return found


def written(kernel: Kernel, prompt: Tensor = PROMPT, length: int = 20, seed: int = 1, step: int = 2) -> list[int]:
    found: list[int] = generate(kernel, prompt, length, seed=seed, step=step).tolist()
    return found


def test_the_same_seed_and_step_write_the_same_and_others_do_not(kernel: Kernel) -> None:
    first = written(kernel)
    assert len(first) == 20
    assert all(0 <= token < 256 for token in first)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    assert written(copy.deepcopy(kernel)) == first
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[:2]
    assert torch.equal(torch.get_rng_state(), before[2])
    others = (
        written(kernel, seed=2),
        written(kernel, step=3),
        written(kernel, PROMPT[1:]),
        written(Kernel(TINY, seed=3)),
    )
    assert first not in others
    assert written(kernel, length=7) == first[:7]
    assert written(kernel, length=0) == []


def test_nothing_of_the_kernel_changes(kernel: Kernel) -> None:
    kernel.train()
    before = copy.deepcopy(kernel.state_dict())
    written(kernel)
    assert kernel.training
    assert all(parameter.grad is None and parameter.requires_grad for parameter in kernel.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in kernel.state_dict().items())


@pytest.mark.parametrize("temperature", [1.0, 0.5, 3.0])
def test_what_is_written_has_the_kernels_probabilities(kernel: Kernel, temperature: float) -> None:
    num = 4000
    tokens = generate(kernel, PROMPT.expand(num, -1), 1, seed=0, step=0, temperature=temperature)[:, 0]
    with torch.no_grad():
        expected = num * (kernel(PROMPT[None])[0, -1].double() / temperature).softmax(dim=-1).numpy()
    counts = np.bincount(tokens.numpy(), minlength=256)
    often = expected >= 5.0
    counts, expected = (np.append(each[often], each[~often].sum()) for each in (counts, expected))
    assert len(counts) > 20
    assert stats.chisquare(counts, expected).pvalue > 1e-3


def test_every_token_is_drawn_given_all_that_came_before_it(kernel: Kernel) -> None:
    prompts = torch.stack([PROMPT, PROMPT.flip(0)])
    found = generate(kernel, prompts, 40, seed=4, step=9)
    assert found.shape == (2, 40)
    noise = uniforms(80, seed=4, step=9, stream="text").view(40, 2)
    for row, prompt in enumerate(prompts):
        text = prompt.tolist()
        for t in range(40):  # beyond the context of 32, of which the oldest then leave
            with torch.no_grad():
                logits = kernel(torch.tensor([text[-32:]]))[0, -1]
            cumulative = logits.double().softmax(dim=-1).cumsum(dim=-1)
            text.append(int((cumulative > noise[t, row] * cumulative[-1]).nonzero()[0]))
        assert text[len(prompt) :] == found[row].tolist()


def test_of_a_prompt_longer_than_the_context_the_end_is_read(kernel: Kernel) -> None:
    long = torch.arange(100) + 32
    assert written(kernel, long) == written(kernel, long[-32:])
    assert written(kernel, long) != written(kernel, long[-31:])


def test_a_low_temperature_writes_the_likeliest(kernel: Kernel) -> None:
    (token,) = generate(kernel, PROMPT, 1, seed=0, step=0, temperature=1e-4).tolist()
    assert token == int(kernel(PROMPT[None])[0, -1].argmax())


def test_a_broken_kernel_writes_nothing() -> None:
    kernel = Kernel(TINY)
    with torch.no_grad():
        kernel.head[7, 0] = torch.nan
    with pytest.raises(QigError, match="not finite after 0 tokens"):
        written(kernel)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"prompt": torch.zeros(0, dtype=torch.long)}, "at least one token"),
        ({"prompt": torch.zeros(1, 1, 1, dtype=torch.long)}, "at least one token"),
        ({"length": -1}, "length"),
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"seed": -1}, "seed"),
        ({"step": -1}, "step"),
    ],
)
def test_what_cannot_be_written_is_refused(kernel: Kernel, given: dict[str, Tensor | float], problem: str) -> None:
    values = {"prompt": PROMPT, "length": 1, "seed": 0, "step": 0} | given
    with pytest.raises(ValueError, match=problem):
        generate(kernel, **values)  # type: ignore[arg-type]


def test_noise_is_uniform_inside_the_interval_and_normal_where_that_is_asked_for() -> None:
    even = uniforms(20_000, seed=3, step=4, stream="labels")
    assert bool(torch.all((even > 0.0) & (even < 1.0)))
    assert stats.kstest(even.numpy(), "uniform").pvalue > 1e-3
    assert stats.kstest(normals(20_000, seed=3, step=4, stream="labels").numpy(), "norm").pvalue > 1e-3
    assert torch.equal(uniforms(100, seed=3, step=4, stream="labels"), even[:100])


def test_noise_of_another_seed_step_or_stream_has_nothing_to_do_with_it() -> None:
    def words(seed: int, step: int, stream: str) -> Tensor:
        return uniforms(5000, seed=seed, step=step, stream=stream)  # type: ignore[arg-type]

    several = [words(0, 0, "text"), words(1, 0, "text"), words(0, 1, "text"), words(0, 0, "labels")]
    batches = np.random.Philox(key=0, counter=0).random_raw(5000) / 2.0**64  # what the training batches come from
    several += [words(0, 0, "directions"), torch.from_numpy(batches)]
    correlation = torch.corrcoef(torch.stack(several)) - torch.eye(6, dtype=torch.float64)
    assert float(correlation.abs().max()) < 5.0 / math.sqrt(5000)
    assert len({float(each[0]) for each in several}) == 6


def test_the_noise_of_a_seed_never_changes() -> None:
    """Runs are repeated from it: these are the words of Philox, not of a method that numpy may improve."""
    found = [each.hex() for each in uniforms(2, seed=1, step=2, stream="text").tolist()]
    assert found == ["0x1.705e62b5e740ap-2", "0x1.3495cf9ac0dddp-1"]


@pytest.mark.parametrize(("noise", "token"), [(1e-9, 1), (0.2499, 1), (0.2501, 3), (1.0 - 2.0**-53, 3)])
def test_an_index_without_probability_is_never_drawn(noise: float, token: int) -> None:
    logits = torch.tensor([-math.inf, math.log(0.25), -math.inf, math.log(0.75), -math.inf])
    assert int(drawn(logits, torch.tensor(noise, dtype=torch.float64))) == token


def test_on_the_edge_of_two_the_second_is_drawn() -> None:
    noise = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    assert drawn(torch.zeros(3, 4), noise).tolist() == [1, 2, 3]
