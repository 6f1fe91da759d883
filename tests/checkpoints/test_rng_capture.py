"""The global random generators are taken down and put back bitwise."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qig_core.checkpoints.pytree import from_files, to_files
from qig_core.checkpoints.rng import capture_rng, restore_rng


def drawn() -> list[Any]:
    return [
        random.random(),
        random.gauss(0, 1),
        *np.random.normal(size=3),
        np.random.randint(1 << 30),
        *torch.randn(3).tolist(),
        torch.rand(1).item(),
    ]


@pytest.mark.parametrize("before", [0, 1, 2, 5])
def test_the_same_numbers_come_again(before: int) -> None:
    for _ in range(before):
        random.gauss(0, 1)
        np.random.normal()  # an odd count leaves half a pair behind
    state = capture_rng()
    first = drawn()
    drawn()
    restore_rng(state)
    assert drawn() == first


def test_the_same_numbers_come_again_from_a_file(tmp_path: Path) -> None:
    np.random.normal()
    for name, payload in to_files({"rng": capture_rng()}).items():
        (tmp_path / name).write_bytes(payload if isinstance(payload, bytes) else b"".join(payload))
    first = drawn()
    restore_rng(from_files(tmp_path)["rng"])
    assert drawn() == first


@pytest.mark.parametrize("draw", [np.random.random, np.random.normal, lambda: np.random.bytes(1), np.random.seed])
def test_every_draw_from_numpy_is_noticed(draw: Any) -> None:
    np.random.seed(1)
    for _ in range(700):  # past a renewal of all 624 words
        draw()
        state = capture_rng()
        expected = np.random.get_state(legacy=False)
        assert np.array_equal(state["numpy"]["state"]["key"], expected["state"]["key"])
        assert state["numpy"]["state"]["pos"] == expected["state"]["pos"]
        assert (state["numpy"]["has_gauss"], state["numpy"]["gauss"]) == (expected["has_gauss"], expected["gauss"])


@pytest.mark.parametrize(
    "draw", [random.random, lambda: random.gauss(0, 1), lambda: random.getrandbits(1), random.seed]
)
def test_every_draw_from_python_is_noticed(draw: Any) -> None:
    random.seed(1)
    for _ in range(700):
        draw()
        assert capture_rng()["python"] == random.getstate()
        assert capture_rng()["python"] == random.getstate()


def test_a_state_that_did_not_change_is_not_read_again() -> None:
    random.random()
    known = capture_rng()["python"]
    assert capture_rng()["python"] is known


def test_taking_a_state_down_draws_nothing() -> None:
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    first = drawn()
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    capture_rng()
    assert drawn() == first
