"""Whatever a writer and the world do to the record files between two looks, the picture is that of the files.

Random schedules against a plain model: files as byte strings, records as the lines in them. A look must leave the
picture as a reader would have it that begins now, and a file that was moved away is read to its end first.

What nobody can know is left out: a file that was cut and has grown again between two looks to the same first bytes and
the same bytes before the reader's mark differs only where nothing is compared, so that such a file is cut once more;
and a file that came and went between two looks was never there.
"""

import json
import math
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest

from qig_core.rundir.atomic import encode_document
from qig_core.rundir.layout import RunDir
from qig_core.rundir.reader import Batch, Tail
from qig_core.rundir.schema import Event, Manifest, Sample, Unreadable
from qig_tui.picture import RunPicture
from qig_tui.sources.local import Backfill, LocalSource, read_run

GROUPS = 12
SCHEDULES = 300
HEAD, MARK = 128, 64
"""How much of the beginning, and of what lies before its mark, a reader compares."""
SEVERE = ("rotate", "replace", "replace", "cut", "cut", "delete")
MILD = ("lines", "lines", "lines", "piece", "piece", "bad", "restart", "late")


class WrittenFile:
    """One record file, on the disk and as bytes; and what a reader has seen of it."""

    def __init__(self, path: Path, rng: random.Random, line: "Lines") -> None:
        self.path = path
        self.rng = rng
        self.line = line
        self.content: bytes | None = None
        """Of the file at the path; None where there is none."""
        self.old: bytes | None = None
        """Of the file that the reader still holds, where it is not the one at the path any more."""
        self.is_old_whole = True
        """Whether nothing but appending happened to it since the last look."""
        self.seen: bytes | None = None
        """What the reader's file held at the last look."""
        self.rest = b""
        """Of the line that is half written."""

    # What is done to the file.

    def append(self, data: bytes) -> None:
        with open(self.path, "ab") as file:
            file.write(data)
        self.content = (self.content or b"") + data

    def lines(self) -> None:
        """Whole ones, after the rest of a half written one."""
        data, self.rest = self.rest, b""
        self.append(data + b"".join(self.line() for _ in range(self.rng.randint(1, 5))))

    def piece(self) -> None:
        """Up to any byte, and any character's middle."""
        line = self.rest or self.line()
        cut = self.rng.randrange(1, len(line)) if len(line) > 1 else 1
        self.append(line[:cut])
        self.rest = line[cut:]

    def bad(self) -> None:
        data, self.rest = self.rest, b""
        bad = (b"{\xff\xfe}", b'{"seq": oops}', b"[1,2]", b"\x00\x00", b'{"seq":1}', b"nul", b'"\xce')
        self.append(data + self.rng.choice(bad) + b"\n" + self.rng.choice((b"", b"\n", b" \n")))

    def late(self) -> None:
        """A number that was given already."""
        data, self.rest = self.rest, b""
        self.append(data + self.line(seq=self.rng.randint(0, 3)) + self.line())

    def restart(self) -> None:
        """A new writer closes a torn line."""
        self.rest = b""
        if self.content and not self.content.endswith(b"\n"):
            self.append(b"\n")
        self.lines()

    def _leave(self) -> None:
        """The reader's file goes from the path."""
        if self.seen is not None and self.old is None:
            self.old = self.content
            self.is_old_whole = self.content is not None and self.content.startswith(self.seen)
        self.content = None

    def rotate(self) -> None:
        """Moved away, and still written to until the writer turns to the new one."""
        if self.content is None:
            return self.lines()
        aside = self.path.with_suffix(f".{self.rng.random()}")
        os.rename(self.path, aside)
        more, self.rest = self.rest + self.rng.choice((b"", self.line())), b""
        more = more[: self.rng.randint(0, len(more))]
        with open(aside, "ab") as file:
            file.write(more)
        self.content += more
        self._leave()
        if self.rng.random() < 0.8:
            self.lines()
        return None

    def replace(self) -> None:
        """By another that is longer, shorter or exactly as long."""
        size = len(self.content or b"")
        kind = self.rng.choice(("longer", "shorter", "equal"))
        goal = size + 150 if kind == "longer" else size // 2 if kind == "shorter" else size
        data = b""
        while len(data) + len(line := self.line()) <= goal:
            data += line
        if kind == "equal" and data:
            data = data[:-1] + b" " * (goal - len(data)) + b"\n"
        other = self.path.with_suffix(".new")
        other.write_bytes(data)
        os.replace(other, self.path)
        self._leave()
        self.content, self.rest = data, b""

    def cut(self) -> None:
        """To nothing or into a line, and grown again by less or by more."""
        size = len(self.content or b"")
        if not size:
            return self.lines()
        at = self.rng.choice((0, self.rng.randrange(size), max(size - 1, 0), size // 2))
        os.truncate(self.path, at)
        self.content, self.rest = (self.content or b"")[:at], b""
        for _ in range(self.rng.randint(0, 3)):
            self.lines()
        while self.rng.random() < 0.5 and len(self.content) <= size:
            self.lines()
        return None

    def delete(self) -> None:
        if self.content is None:
            return self.lines()
        os.unlink(self.path)
        self._leave()
        self.rest = b""
        return self.lines() if self.rng.random() < 0.5 else None

    # What a look finds.

    def make_visible(self) -> None:
        """Cut once more what nobody could tell from what was read."""
        if self.old is not None or self.seen is None or self.content is None:
            return
        mark = whole(self.seen)
        kept = self.content[:mark] == self.seen[:mark] or len(self.content) < mark
        head = self.seen[:HEAD]
        same = self.content.startswith(head) and self.content[:mark][-MARK:] == self.seen[:mark][-MARK:]
        if not kept and same:
            os.truncate(self.path, 0)
            self.content, self.rest = b"", b""

    def look(self) -> tuple[bytes | None, bytes]:
        """What lay in the reader's file when it was left in this look (None: it was not), and what lies in it now."""
        left = None
        if self.content is not None:
            if self.old is not None:
                left, self.old = self.old, None
            self.seen = self.content
        elif self.old is not None:
            # It is gone from the path, and no other is there: still read.
            self.seen = self.old
            return None, self.old[: whole(self.old)]
        return left, (self.seen or b"")[: whole(self.seen or b"")]


def whole(content: bytes) -> int:
    """The end of the last whole line."""
    return content.rfind(b"\n") + 1


class Lines:
    """Numbered records of one stream, each line another than every other."""

    def __init__(self, rng: random.Random, *, is_event: bool) -> None:
        self.rng, self.is_event = rng, is_event
        self.seq = self.step = 0

    def __call__(self, seq: int | None = None) -> bytes:
        rng = self.rng
        if seq is None:
            seq, self.seq = self.seq, self.seq + 1
        self.step = max(self.step - 5, 0) if rng.random() < 0.1 else self.step + 1
        text = "".join(rng.choices("aé測𝄞", k=rng.randint(0, 4))) + f"{rng.getrandbits(24):x}"
        record: dict[str, object] = {"seq": seq, "step": self.step, "t": 1.0}
        if self.is_event:
            record |= {"kind": "note", "data": {"text": text}}
        else:
            record |= {"m": {"a": rng.choice((rng.random(), rng.random(), math.nan))}, "regime": text}
            if rng.random() < 0.3:
                record["m"] |= {"b": rng.random()}  # type: ignore[operator]  # the dictionary of the line before
        return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def parsed(content: bytes) -> list[dict | None]:
    """The record of each line, None for one that is none; blank ones do not count."""
    out = []
    for line in content.split(b"\n"):
        if line.strip():
            try:
                record = json.loads(line)
                out.append({"step": None, **record} if {"seq", "t"} <= record.keys() else None)
            except (ValueError, AttributeError):
                out.append(None)
    return out


def folded(records: list[dict | None]) -> dict[str, object]:
    """What a history is to hold of such records."""
    counts = {"read": 0, "bad": 0, "late": 0}
    points: dict[str, list[tuple[int, float, int]]] = {}
    last_seq, last_step, segment = -1, None, 0
    for record in records:
        if record is None:
            counts["bad"] += 1
        elif record["seq"] <= last_seq:
            counts["late"] += 1
        else:
            counts["read"] += 1
            segment += last_step is not None and record["step"] <= last_step
            last_seq, last_step = record["seq"], record["step"]
            for name, value in record["m"].items():
                points.setdefault(name, []).append((record["step"], value, segment))
    return counts | {name: repr(found) for name, found in points.items()}


def remembered(picture: RunPicture) -> dict[str, object]:
    """The same of the real one."""
    history = picture.history
    found: dict[str, object] = {"read": history.read, "bad": history.bad, "late": history.late}
    for name in history.metrics:
        series = history.series(name)
        columns = (series.step.tolist(), series.value.tolist(), series.segment.tolist())
        found[name] = repr(list(zip(*columns, strict=True)))
    return found


def told(records: list[dict | None]) -> tuple[list[object], int]:
    good = [(r["seq"], r["step"], r["data"]["text"]) for r in records if r is not None]
    return good, len(records) - len(good)


def heard(picture: RunPicture) -> tuple[list[object], int]:
    return [(e.seq, e.step, e.data["text"]) for e in picture.journal.events], picture.journal.bad


class Follower:
    """A bare Tail: what it read of the file before, and of the one it is at."""

    def __init__(self, path: Path, kind: type, max_bytes: int) -> None:
        self.tail = Tail(path, kind)
        self.max_bytes = max_bytes
        self.now: list[object] = []
        self.before: list[object] = []

    def look(self) -> None:
        while True:
            batch = self.tail.poll(self.max_bytes)
            if batch.restarted:
                self.before, self.now = self.now, []
            self.now += [None if isinstance(r, Unreadable) else r.seq for r in batch.records]
            if not batch.more:
                return


def run_schedule(root: Path, seed: int) -> None:
    """One schedule; an AssertionError where anything differs from the model."""
    rng = random.Random(seed)
    run = RunDir(root / f"run{seed}")
    run.path.mkdir()
    run.manifest.write_bytes(encode_document(Manifest(id=run.id, state="exited")))
    telemetry = WrittenFile(run.telemetry(), rng, Lines(rng, is_event=False))
    events = WrittenFile(run.events, rng, Lines(rng, is_event=True))
    for file in (telemetry, events):
        for _ in range(rng.choice((0, 1, 5, 12))):
            file.lines()
        if rng.random() < 0.4:
            file.piece()
    source = LocalSource(run, tail_bytes=rng.choice((1, 100, 300, 700, 1 << 20)))
    picture = RunPicture(source.manifest)
    followers = [
        Follower(file.path, kind, max_bytes)
        for file, kind in ((telemetry, Sample), (events, Event))
        for max_bytes in (rng.randint(1, 300), 1 << 18)
    ]
    try:
        _follow(rng, telemetry, events, source, picture, followers)
    finally:
        source.close()
        for follower in followers:
            follower.tail.close()


def run_schedules(root: Path, seeds: Iterable[int]) -> None:
    for seed in seeds:
        try:
            run_schedule(root, seed)
        except BaseException as error:
            error.add_note(f"run_schedule(tmp_path, seed={seed})")
            raise


def _follow(rng, telemetry, events, source, picture, followers):
    def look() -> None:
        for file in (telemetry, events):
            file.make_visible()
        picture.apply(source.look())
        for file, mine in ((telemetry, followers[:2]), (events, followers[2:])):
            is_old_whole = file.is_old_whole
            left, content = file.look()
            expected[file.path] = parsed(content)
            for follower in mine:
                follower.look()
                assert follower.now == [r and r["seq"] for r in parsed(content)]
                if left is not None and is_old_whole:
                    assert follower.before == [r and r["seq"] for r in parsed(left)]

    def check() -> None:
        assert remembered(picture) == folded(expected[telemetry.path])
        assert heard(picture) == told(expected[events.path])

    def move(kinds) -> None:
        for file in (telemetry, events):
            for _ in range(rng.choice((0, 1, 1, 2, 3))):
                getattr(file, rng.choice(kinds))()

    expected: dict[Path, list[dict | None]] = {}
    look()
    # Until the part before the tail is read, nobody can know of a number that it stands there already: none are late.
    prompt = tuple(kind for kind in MILD if kind != "late")
    move(prompt if rng.random() < 0.7 else prompt + SEVERE)
    if source.backfill_end:
        meanwhile = rng.choice(((), prompt, prompt + SEVERE))
        shares = iter([lambda: (move(meanwhile), look())] if meanwhile else [])
        older = source.backfill(lambda share: next(shares, lambda: None)(), threading.Event())
        picture.backfill(Backfill(share=None, older=older))
    if telemetry.content is None:
        # The part before the tail went with its file; what comes next is another.
        telemetry.lines()
    look()
    check()
    for _ in range(12):
        move(MILD + SEVERE if rng.random() < 0.6 else MILD)
        look()
        check()


@pytest.mark.parametrize("group", range(GROUPS))
def test_after_every_look_the_picture_is_that_of_the_files(tmp_path, group):
    run_schedules(tmp_path, range(group, SCHEDULES, GROUPS))


def that_leaves_the_old_file(poll):
    """A file of another inode is turned to at once."""

    def flawed(self, *args):
        if self._fd >= 0 and os.path.exists(self.path) and os.fstat(self._fd).st_ino != os.stat(self.path).st_ino:
            self.close()
            self._begin_again()
            return Batch(records=poll(self, *args).records, restarted=True)
        return poll(self, *args)

    return flawed


def that_does_not_see_a_cut(poll):
    """A file that is shorter than what was read of it is waited for."""

    def flawed(self, *args):
        is_cut = self._fd >= 0 and os.fstat(self._fd).st_size < self.offset
        return Batch() if is_cut and os.path.exists(self.path) else poll(self, *args)

    return flawed


def that_takes_torn_lines(poll):
    """What has no newline yet is taken as it is."""

    def flawed(self, *args):
        found = poll(self, *args)
        if self._fd >= 0 and not found.more and (torn := self._fragment()).records:
            found.records = [*found.records, *torn.records]
        return found

    return flawed


@pytest.mark.parametrize(
    ("what", "flaw"),
    [
        ("poll", that_leaves_the_old_file),
        ("poll", that_does_not_see_a_cut),
        ("poll", that_takes_torn_lines),
        ("_is_rewritten", lambda _: lambda self: False),
        ("_fragment", lambda _: lambda self: Batch()),
    ],
)
def test_a_reader_with_a_flaw_does_not_pass(tmp_path, monkeypatch, what, flaw):
    monkeypatch.setattr(Tail, what, flaw(getattr(Tail, what)))
    with pytest.raises(AssertionError):
        run_schedules(tmp_path, range(40))


WRITER = """
import sys
from pathlib import Path
from qig_core.rundir.schema import Manifest
from qig_core.rundir.writer import RunWriter
with RunWriter.create(Path(sys.argv[1]), Manifest(id="a")) as writer:
    for step in range(300):
        writer.telemetry.log(step, {"a": step / 2})
    print("ready", flush=True)
    sys.stdin.readline()
    for step in range(300, 1500):
        writer.telemetry.log(step, {"a": step / 2})
        if step % 10 == 0:
            writer.event("note", step=step, text=str(step))
        writer.step_done(step)
"""


def test_all_that_another_process_writes_arrives(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout.readline() == "ready\n"
        source = LocalSource(RunDir(tmp_path / "a"), tail_bytes=2000)
        picture = RunPicture(source.manifest)
        stop, ended, filled = threading.Event(), threading.Event(), threading.Event()

        def post(found):
            if isinstance(found, Backfill):
                picture.backfill(found)
                if found.share is None:
                    filled.set()
                return
            picture.apply(found)
            if picture.ended:
                ended.set()

        reader = threading.Thread(target=read_run, args=(source, post, stop))
        reader.start()
        try:
            writer.stdin.write("go\n")
            writer.stdin.flush()
            assert ended.wait(30)
            assert filled.wait(30)
        finally:
            stop.set()
            reader.join(20)
    assert not reader.is_alive()
    series = picture.history.series("a")
    assert series.step.tolist() == list(range(1500))
    assert series.value.tolist() == [step / 2 for step in range(1500)]
    assert remembered(picture) | {"a": None} == {"read": 1500, "bad": 0, "late": 0, "a": None}
    assert [e.step for e in picture.journal.events if e.kind == "note"] == list(range(300, 1500, 10))
