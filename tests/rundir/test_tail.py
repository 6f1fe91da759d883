"""Reading what somebody else is writing: whatever happens between two polls, each line is told once."""

import os
import shutil
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qig_core.errors import RunFormatError
from qig_core.rundir.layout import RunDir
from qig_core.rundir.reader import Batch, LineDecoder, Tail, read_all, read_document, read_manifest, tail_start
from qig_core.rundir.schema import (
    Event,
    Manifest,
    Sample,
    Scalars,
    Unreadable,
)
from qig_core.rundir.values import MAX_LINE_BYTES


def line(seq: int, **more: object) -> bytes:
    return msgspec.json.encode({"seq": seq, "step": seq, "t": 1.5, "m": {"phi": 0.5}, **more}) + b"\n"


def drained(tail: Tail[Sample], max_bytes: int = 1 << 22) -> tuple[list[Sample | Unreadable], bool]:
    """What a reader has after polling until nothing more comes, and whether it had to begin anew."""
    out: list[Sample | Unreadable] = []
    anew = False
    for _ in range(100_000):
        batch = tail.poll(max_bytes)
        if batch.restarted:
            out, anew = [], True
        out += batch.records
        if not batch.more:
            return out, anew
    raise AssertionError("poll never came to an end")


def seqs(records: list[Sample | Unreadable]) -> list[int | None]:
    return [r.seq if isinstance(r, Sample) else None for r in records]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "telemetry.jsonl"


ODD_LINES = [
    b"\n",
    b"  \n",
    b"garbage\n",
    b"\xff\xfe\xfd\n",
    b"\x00\x00\x00\n",
    b'{"seq":1,"step":1\n',
    b'{"seq":1,"step":1,"t":1.0}{"seq":2,"step":2,"t":1.0}\n',
    b'"t":1.0}\n',
    b'{"seq":900,\n',
    b'{"seq":901,"step":1,"t":1.0,"m":{"a":NaN,"b":1e400,"c":-Infinity}}\n',
    b'{"seq":902,"step":1,"t":1.0,"m":{"a":true}}\n',
    b'{"seq":903,"step":1,"t":NaN}\n',
    b'{"seq":904,"step":1,"t":1.0,"new":{"deep":[1,2]},"regime":"x"}\r\n',
    b'{"seq":905,"step":1,"t":1.0,"zz":' + b"[" * 5000 + b"]" * 5000 + b"}\n",
    b'{"seq":906,"step":1,"t":1.0,"regime":"\\ud800"}\n',
    b"[1,2,3]\n",
    b'{"seq":907,"step":1,"t":1.0,"regime":"' + "Φ—漢".encode() * 50 + b'"}\n',
]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.one_of(st.integers(0, 50).map(line), st.sampled_from(ODD_LINES)), max_size=25),
    st.lists(st.integers(1, 400), min_size=1, max_size=20),
    st.integers(1, 300),
)
def test_any_schedule_of_writes_and_polls_gives_the_same_records(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], cuts: list[int], max_bytes: int
) -> None:
    path = tmp_path_factory.mktemp("tail") / "telemetry.jsonl"
    content = b"".join(lines)
    path.write_bytes(content)
    at_once = read_all(path, Sample)
    path.unlink()
    tail = Tail(path, Sample)
    found: list[Sample | Unreadable] = []
    with path.open("ab", buffering=0) as file:
        position = turn = 0
        while position < len(content):
            cut = cuts[turn % len(cuts)]
            file.write(content[position : position + cut])
            position += cut
            turn += 1
            new, anew = drained(tail, max_bytes)
            assert not anew
            found += new
    tail.close()
    assert [repr(r) for r in found] == [repr(r) for r in at_once]
    assert tail.offset == len(content)
    # Every line that is not blank is accounted for.
    assert len(found) == sum(1 for each in content.split(b"\n") if each.strip())


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["append", "tear", "truncate", "replace", "rewrite", "poll"]), st.integers(1, 9))
    ),
    st.integers(1, 500),
)
def test_whatever_happens_to_the_file_the_reader_ends_with_what_is_in_it(
    tmp_path_factory: pytest.TempPathFactory, acts: list[tuple[str, int]], max_bytes: int
) -> None:
    folder = tmp_path_factory.mktemp("tail")
    path = folder / "telemetry.jsonl"
    tail = Tail(path, Sample)
    known: list[Sample | Unreadable] = []
    seq = generation = 0

    def content(count: int) -> bytes:
        nonlocal seq
        seq += count
        return b"".join(line(seq - count + i, session=f"s{generation}") for i in range(count))

    def poll() -> None:
        nonlocal known
        new, anew = drained(tail, max_bytes)
        known = new if anew else known + new

    for act, count in acts:
        if act == "append":
            with path.open("ab") as file:
                file.write(content(count))
        elif act == "tear" and path.exists():
            with path.open("ab") as file:
                file.write(content(1)[: 10 * count])
        elif act == "truncate" and path.exists():
            os.truncate(path, path.stat().st_size // count)
            poll()  # a file that is cut and grows back unseen is known only by its content
        elif act == "replace":
            generation += 1
            (folder / "new").write_bytes(content(count))
            os.replace(folder / "new", path)
            poll()
        elif act == "rewrite":
            generation += 1
            path.write_bytes(content(count))
        else:
            poll()
    poll()
    tail.close()
    expected = read_all(path, Sample)
    assert [repr(r) for r in known] == [repr(r) for r in expected]


def test_a_torn_line_waits_for_its_newline(path: Path) -> None:
    tail = Tail(path, Sample)
    assert tail.poll() == Batch()
    whole = line(0, regime="Φ")
    for cut in (1, whole.index("Φ".encode()) + 1, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert tail.poll().records == ()
    path.write_bytes(whole)
    (sample,) = tail.poll().records
    assert isinstance(sample, Sample)
    assert sample.regime == "Φ"
    tail.close()


def test_a_bad_line_in_the_middle_is_counted_with_its_place(path: Path) -> None:
    path.write_bytes(line(0) + b"x" * 300 + b"\n" + line(1))
    first, bad, last = read_all(path, Sample)
    assert seqs([first, last]) == [0, 1]
    assert isinstance(bad, Unreadable)
    assert (bad.path, bad.offset, bad.text) == (str(path), len(line(0)), b"x" * 200)
    assert "malformed" in bad.reason


def test_a_number_out_of_range_and_a_bare_nan_keep_their_kind(path: Path) -> None:
    path.write_bytes(
        b'{"seq":1,"step":1,"t":1.0,"m":{"a":NaN,"b":1e400,"c":-Infinity,"d":0.5},"nonfinite":{"e":"nan"}}\n'
    )
    (sample,) = read_all(path, Sample)
    assert isinstance(sample, Sample)
    assert sample.m == {"a": None, "b": None, "c": None, "d": 0.5}
    assert sample.nonfinite == {"a": "nan", "b": "inf", "c": "-inf", "e": "nan"}
    (scalars,) = read_all(path, Scalars)
    assert isinstance(scalars, Scalars)
    assert (scalars.m, scalars.nonfinite) == (sample.m, sample.nonfinite)


def test_a_bare_nan_in_an_event_keeps_its_kind(path: Path) -> None:
    path.write_bytes(b'{"seq":1,"t":1.0,"kind":"condition","data":{"value":NaN}}\n')
    (event,) = read_all(path, Event)
    assert isinstance(event, Event)
    assert event.data == {"value": None, "nonfinite": {"value": "nan"}}


def test_unknown_keys_and_kinds_are_accepted(path: Path) -> None:
    path.write_bytes(line(0, future={"x": [1]}) + b'{"seq":1,"t":1.0,"kind":"from the future","colour":1}\n')
    assert seqs(read_all(path, Sample)[:1]) == [0]
    event = read_all(path, Event)[1]
    assert isinstance(event, Event)
    assert event.kind == "from the future"


def test_a_line_beyond_the_limit_is_one_unreadable_and_the_next_is_read(path: Path) -> None:
    long = b'{"seq":1,"regime":"' + b"x" * (MAX_LINE_BYTES + 5_000_000) + b'"}\n'
    path.write_bytes(line(0) + long + line(2))
    found = read_all(path, Sample)
    assert seqs(found) == [0, None, 2]
    bad = found[1]
    assert isinstance(bad, Unreadable)
    assert bad.offset == len(line(0))
    assert "longer than" in bad.reason
    tail = Tail(path, Sample)
    assert seqs(drained(tail, 1000)[0]) == [0, None, 2]
    assert tail.offset == path.stat().st_size
    tail.close()


def test_an_endless_line_is_told_once_and_costs_no_memory(path: Path) -> None:
    path.write_bytes(line(0))
    os.truncate(path, MAX_LINE_BYTES * 3)
    tail = Tail(path, Sample)
    assert seqs(drained(tail)[0]) == [0, None]
    assert drained(tail) == ([], False)
    with path.open("ab") as file:
        file.write(b"\n" + line(1))
    assert seqs(drained(tail)[0]) == [1]
    tail.close()


def test_a_line_of_the_limit_is_a_record(path: Path) -> None:
    frame = line(0, regime="")
    path.write_bytes(line(0, regime="x" * (MAX_LINE_BYTES - len(frame))))
    assert path.stat().st_size == MAX_LINE_BYTES
    assert seqs(read_all(path, Sample)) == [0]


def test_the_rest_of_a_rotated_file_comes_before_the_new_one(path: Path) -> None:
    path.write_bytes(line(0))
    tail = Tail(path, Sample)
    assert seqs(drained(tail)[0]) == [0]
    with path.open("ab") as file:
        file.write(line(1) + b'{"seq":2,"st')
    path.rename(path.with_suffix(".1"))
    batch = tail.poll()
    assert (seqs(list(batch.records)), batch.restarted) == ([1], False)
    path.write_bytes(line(5))
    batch = tail.poll()
    assert (len(batch.records), batch.restarted, batch.more) == (1, False, True)
    assert isinstance(batch.records[0], Unreadable)
    batch = tail.poll()
    assert (seqs(list(batch.records)), batch.restarted) == ([5], True)
    tail.close()


def test_a_file_that_shrank_or_was_cut_and_grew_back_is_read_from_its_start(path: Path) -> None:
    path.write_bytes(line(0) + line(1))
    tail = Tail(path, Sample)
    drained(tail)
    path.write_bytes(line(7))
    assert drained(tail) == ([msgspec.json.decode(line(7), type=Sample)], True)
    os.truncate(path, 0)
    path.write_bytes(b"".join(map(line, range(20, 30))))
    found, anew = drained(tail)
    assert (seqs(found), anew) == (list(range(20, 30)), True)
    # The same beginning, another end: seen by what stood before the offset.
    path.write_bytes(b"".join(map(line, [*range(20, 28), 48, 49, 50])))
    found, anew = drained(tail)
    assert (seqs(found), anew) == ([*range(20, 28), 48, 49, 50], True)
    tail.close()


def test_a_start_beyond_the_end_begins_anew(path: Path) -> None:
    path.write_bytes(line(0))
    tail = Tail(path, Sample, start=10_000)
    found, anew = drained(tail)
    assert (seqs(found), anew) == ([0], True)
    tail.close()


def test_a_deleted_file_is_an_empty_one_and_its_successor_a_new_one(path: Path) -> None:
    path.write_bytes(line(0))
    tail = Tail(path, Sample)
    drained(tail)
    path.unlink()
    assert drained(tail) == ([], False)
    path.write_bytes(line(3))
    found, anew = drained(tail)
    assert (seqs(found), anew) == ([3], True)
    tail.close()


def test_something_that_is_no_file_is_an_error_and_never_blocks(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(OSError, match="not a regular file"):
        Tail(path, Sample).poll()
    with pytest.raises(RunFormatError, match="not a regular file"):
        read_all(path, Sample)
    with pytest.raises(RunFormatError, match="not a regular file"):
        read_document(path, Manifest)


@pytest.mark.parametrize("size", [0, 1, 10, 43, 44, 45, 100, 10_000])
def test_the_tail_starts_at_a_line(path: Path, size: int) -> None:
    content = b"".join(map(line, range(20)))
    starts = {0} | {i + 1 for i, byte in enumerate(content) if byte == 10}
    for end in (len(content), len(content) - 1, len(content) - 30):
        path.write_bytes(content[:end])
        start = tail_start(path, size)
        assert start in starts
        assert start <= end
        # Nothing that would fit is left out.
        assert not [s for s in starts if end - size <= s < start]
    assert tail_start(path.with_name("absent"), size) == 0


def test_a_record_over_two_lines_or_two_on_one_are_unreadable_in_any_chunk(path: Path) -> None:
    decoder = LineDecoder(path, Sample)
    spanning = b'{"seq":1,\n"step":1,"t":1.0}\n'
    assert [type(r) for r in decoder.decode(spanning, 0)] == [Unreadable, Unreadable]
    double = line(1).strip() + line(2)
    assert [type(r) for r in decoder.decode(double, 0)] == [Unreadable]


def write_manifest(folder: Path, text: str) -> RunDir:
    (folder / "run.json").write_text(text)
    return RunDir(folder)


def test_a_newer_minor_format_and_unknown_keys_of_a_manifest_are_accepted(tmp_path: Path) -> None:
    manifest = read_manifest(write_manifest(tmp_path, '{"id":"r1","format":1,"minor":9,"colour":{"a":[1]}}'))
    assert (manifest.id, manifest.minor) == ("r1", 9)


@pytest.mark.parametrize("text", ['{"id":"r1","format":2}', '{"format":7,"id":{"not":"a string any more"}}'])
def test_a_newer_major_format_is_refused_by_its_number(tmp_path: Path, text: str) -> None:
    with pytest.raises(RunFormatError, match=r"has format \d; this program reads 1: upgrade"):
        read_manifest(write_manifest(tmp_path, text))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format":0,"id":"x"}', '{"format":1}', '{"id":"r1","x":' + "[" * 50_000, "\xff"]
)
def test_a_manifest_that_is_none_is_one_clear_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(RunFormatError, match=r"run\.json"):
        read_manifest(RunDir(tmp_path))
    shutil.rmtree(tmp_path)
    with pytest.raises(RunFormatError, match="does not exist"):
        read_manifest(RunDir(tmp_path))
