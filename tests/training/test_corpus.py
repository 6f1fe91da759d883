"""Where text comes from, what is refused, and that a step alone decides what it sees."""

from pathlib import Path

import blake3
import numpy as np
import pytest

from qig_core.errors import CorpusError
from qig_core.training.corpus import (
    SPLIT_RULE,
    batch,
    default_corpus,
    heldout_batches,
    load_corpus,
    probe_batch,
)

TEXT = "The quick brown fox jumps over the lazy dög.\n" * 200


def test_the_default_corpus_is_the_interpreters_own_reference() -> None:
    corpus = default_corpus()
    assert corpus.name == "pydoc_data.topics"
    assert corpus.size_bytes > 300_000
    assert corpus.heldout.size == corpus.size_bytes // 10
    assert corpus.digest == default_corpus().digest


def test_the_held_out_part_is_the_tail_and_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(TEXT, encoding="utf-8")
    corpus = load_corpus([path])
    content = TEXT.encode()
    assert corpus.train.tobytes() + corpus.heldout.tobytes() == content
    assert corpus.train.dtype == np.uint8
    assert corpus.digest == blake3.blake3(SPLIT_RULE.encode() + b"\0" + content).hexdigest()
    assert not corpus.train.flags.writeable


def test_a_folder_gives_its_text_files_in_order_without_hidden_and_binary_ones(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / "b.txt").write_text("b" * 3000)
    (tmp_path / "sub" / "a.txt").write_text("c" * 3000)
    (tmp_path / "a.txt").write_text("a" * 3000)
    (tmp_path / ".hidden.txt").write_text("h" * 3000)
    (tmp_path / ".git" / "config").write_text("g" * 3000)
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\0")
    corpus = load_corpus([tmp_path])
    text = (corpus.train.tobytes() + corpus.heldout.tobytes()).decode()
    assert text == "\n".join(letter * 3000 for letter in "abc")
    assert (corpus.num_files, corpus.num_skipped) == (3, 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n" * 5000, "is empty"),
        (b"short", "too short: 5 bytes, at least 4096"),
        (b"x" * 5000 + b"\0", "NUL byte at offset 5000"),
        (b"x" * 5000 + b"\xff", "not UTF-8 at offset 5000"),
    ],
)
def test_a_file_that_cannot_be_trained_on_is_refused_with_the_reason(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "text"
    path.write_bytes(content)
    with pytest.raises(CorpusError, match=message):
        load_corpus([path])


def test_missing_unreadable_and_strange_paths_are_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CorpusError, match=r"no such file or folder: .*nowhere"):
        load_corpus([tmp_path / "nowhere"])
    with pytest.raises(CorpusError, match="no text file in folder"):
        load_corpus([tmp_path])
    with pytest.raises(CorpusError, match="neither a file nor a folder"):
        load_corpus([Path("/dev/zero")])
    with pytest.raises(CorpusError, match="no corpus path"):
        load_corpus([])
    path = tmp_path / "text"
    path.write_text(TEXT)

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(CorpusError, match=r"cannot read .*Permission denied"):
        load_corpus([path])


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    data = default_corpus().train
    first = batch(data, seed=3, step=7, batch_size=16, context=64)
    batch(data, seed=3, step=8, batch_size=16, context=64)
    assert first.shape == (16, 65)
    assert first.dtype == np.int64
    np.testing.assert_array_equal(first, batch(data, seed=3, step=7, batch_size=16, context=64))
    for seed, step in ((3, 8), (4, 7), (7, 3)):
        assert not np.array_equal(first, batch(data, seed=seed, step=step, batch_size=16, context=64))


def test_batches_reach_the_first_and_the_last_byte() -> None:
    data = np.arange(12, dtype=np.uint8)
    rows = np.concatenate([batch(data, seed=0, step=s, batch_size=8, context=8) for s in range(20)])
    assert set(rows[:, 0]) == {0, 1, 2, 3}
    np.testing.assert_array_equal(np.diff(rows, axis=1), 1)


def test_the_data_of_a_step_never_changes_between_versions() -> None:
    data = np.arange(200, dtype=np.uint8)
    assert batch(data, seed=1, step=2, batch_size=4, context=8)[:, 0].tolist() == [174, 56, 126, 24]


def test_probe_and_held_out_batches_are_fixed_and_spread() -> None:
    heldout = default_corpus().heldout
    probe = probe_batch(heldout, context=64)
    assert probe.shape == (8, 64)
    np.testing.assert_array_equal(probe[0], heldout[:64])
    np.testing.assert_array_equal(probe[-1], heldout[-65:-1])
    batches = heldout_batches(heldout, num_batches=3, batch_size=5, context=64)
    assert [b.shape for b in batches] == [(5, 65)] * 3
    np.testing.assert_array_equal(batches[-1][-1], heldout[-65:])


def test_text_shorter_than_a_window_and_negative_counters_are_refused() -> None:
    data = np.zeros(64, dtype=np.uint8)
    with pytest.raises(CorpusError, match=r"64 bytes are too few .* = 65"):
        batch(data, seed=0, step=0, batch_size=1, context=64)
    with pytest.raises(ValueError, match="negative"):
        batch(data, seed=0, step=-1, batch_size=1, context=8)
