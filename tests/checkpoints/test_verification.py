"""Every changed byte is found, links are not followed, and numbers that are not finite are named."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qig_core.checkpoints.catalog import list_checkpoints
from qig_core.checkpoints.manifest_file import encode_sealed, read_sealed
from qig_core.checkpoints.pytree import to_files
from qig_core.checkpoints.store import publish
from qig_core.checkpoints.verification import verify
from qig_core.errors import CheckpointError, UsageError
from qig_core.rundir.layout import RunDir


def put(run: RunDir, state: dict[str, Any]) -> Path:
    manifest = publish(run, session="5e55", step=1, reason="interval", files=to_files(state), metrics={"loss": 1.0})
    return run.checkpoint(manifest.name)


@pytest.fixture
def checkpoint(run: RunDir) -> Path:
    return put(run, {"model": {"w": torch.arange(12.0)}, "optimizer": {"step": torch.tensor(3)}, "epoch": 2})


NAMES = ["manifest.json", "model.safetensors", "optimizer.safetensors", "state.json"]


def test_these_are_all_the_files(checkpoint: Path) -> None:
    assert sorted(path.name for path in checkpoint.iterdir()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_torn(run: RunDir, checkpoint: Path, name: str) -> None:
    (checkpoint / name).unlink()
    assert [found.status for found in list_checkpoints(run)] == ["TORN"]
    verification = verify(run, checkpoint.name)
    assert (verification.status, verification.problems) == ("TORN", (f"{name} is missing",))
    assert verification.step == 1


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "..", "sub/x", "manifest.json"])
def test_a_manifest_that_names_a_file_elsewhere_is_not_followed(run: RunDir, checkpoint: Path, path: str) -> None:
    (run.checkpoints / "secret").write_bytes(b"x")
    manifest = read_sealed(checkpoint / "manifest.json")
    manifest.files[0].path = path
    (checkpoint / "manifest.json").write_bytes(encode_sealed(manifest))
    verification = verify(run, checkpoint.name)
    assert verification.status == "UNREADABLE"
    assert "not a plain file name" in verification.problems[0]


def test_digests_that_were_exchanged_with_the_files_do_not_fit_the_fingerprint(run: RunDir, checkpoint: Path) -> None:
    manifest = read_sealed(checkpoint / "manifest.json")
    manifest.fingerprint = "0" * 64
    (checkpoint / "manifest.json").write_bytes(encode_sealed(manifest))
    assert verify(run, checkpoint.name).status == "HASH-MISMATCH"


def test_a_newer_format_is_named_and_says_what_to_do(run: RunDir, checkpoint: Path) -> None:
    manifest = read_sealed(checkpoint / "manifest.json")
    manifest.format = 2
    (checkpoint / "manifest.json").write_bytes(encode_sealed(manifest))
    verification = verify(run, checkpoint.name)
    assert verification.status == "NEWER"
    assert "upgrade qig-tui" in verification.problems[0]


def test_a_key_of_a_newer_minor_format_is_passed_over(run: RunDir, checkpoint: Path) -> None:
    path = checkpoint / "manifest.json"
    assert json.loads(path.read_bytes())["seal"]  # itself a key that the schema need not know
    assert verify(run, checkpoint.name).status == "COMPLETE"


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e5m2, torch.complex128]
)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_tensor_with_one_value_that_is_not_finite_is_named(run: RunDir, dtype: torch.dtype, bad: float) -> None:
    sick = torch.ones(7, 3)
    sick[5, 1] = bad
    state = {"model": {"sick": sick.to(dtype), "well": torch.full((9,), 1e4).to(dtype), "n": torch.tensor([-1])}}
    verification = verify(run, put(run, state).name)
    assert verification.status == "COMPLETE"
    assert verification.nonfinite == ("model:sick",)


@pytest.mark.parametrize("at", [0, (2 << 20) // 8 - 1, (2 << 20) // 8, 600_000, 1_199_999])
@pytest.mark.parametrize("pad", range(8))
def test_a_value_at_any_place_of_a_file_longer_than_one_chunk_is_seen(run: RunDir, at: int, pad: int) -> None:
    # As another program may write it: the tensor does not begin at a multiple of its element.
    values = np.zeros(1_200_000)
    values[at] = np.nan
    header = json.dumps({"w": {"dtype": "F64", "shape": [1_200_000], "data_offsets": [0, 9_600_000]}}).encode()
    header += b" " * pad
    content = len(header).to_bytes(8, "little") + header + values.tobytes()
    name = publish(run, session="s", step=1, reason="end", files={"w.safetensors": content}).name
    assert verify(run, name).nonfinite == ("w:w",)
    values[at] = 0
    content = len(header).to_bytes(8, "little") + header + values.tobytes()
    name = publish(run, session="s", step=1, reason="end", files={"w.safetensors": content}).name
    assert (verify(run, name).status, verify(run, name).nonfinite) == ("COMPLETE", ())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8,
        b"\x02\0\0\0\0\0\0\0[]",
        b"\x02\0\0\0\0\0\0\0{}rest",
        b'\x07\0\0\0\0\0\0\0{"w":1}',
        b"\x3c\0\0\0\0\0\0\0" + b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}      ' + b"12345678",
        b"\x3c\0\0\0\0\0\0\0" + b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}      ' + b"1234",
    ],
)
def test_a_safetensors_file_that_is_none_is_found_though_its_hash_fits(run: RunDir, content: bytes) -> None:
    name = publish(run, session="s", step=1, reason="end", files={"w.safetensors": content}).name
    verification = verify(run, name)
    assert verification.status == "UNREADABLE"
    assert "no safetensors file" in verification.problems[0]


def test_progress_ends_at_the_whole_size(run: RunDir, checkpoint: Path) -> None:
    calls: list[tuple[int, int]] = []
    verify(run, checkpoint.name, lambda done, total: calls.append((done, total)))
    assert calls == sorted(calls)
    assert calls[-1][0] == calls[-1][1] == list_checkpoints(run)[0].size


def test_a_checkpoint_that_is_not_there_is_an_error(run: RunDir, checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint"):
        verify(run, "step-00000002-000000")
    with pytest.raises((CheckpointError, UsageError)):
        verify(run, "../a-run")


def test_verifying_loads_no_torch(run: RunDir, checkpoint: Path) -> None:
    code = (
        "import sys; from qig_core.checkpoints import commands, recovery; from qig_core.rundir.layout import RunDir;"
        f"run = RunDir({str(run.path)!r}); print(recovery.newest_verified(run).status, list(commands.verify(run))[-1]);"
        "assert 'torch' not in sys.modules and 'safetensors' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("COMPLETE")


def test_the_ranking_loads_neither_numpy_nor_torch() -> None:
    code = (
        "import sys; import qig_core.checkpoints.ranking;"
        "assert not {'torch', 'numpy', 'blake3', 'qig_core.checkpoints.store'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
