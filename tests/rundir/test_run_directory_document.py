"""docs/run-directory.md is executed: its writer is read by our reader, its reader reads our golden run."""

import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from qig_core.rundir import liveness, mailbox, schema, values
from qig_core.rundir.layout import RunDir
from qig_core.rundir.liveness import BeatWatch
from qig_core.rundir.reader import read_all, read_document, read_manifest
from qig_core.rundir.schema import Heartbeat, Sample
from qig_core.rundir.values import decode_basin
from qig_core.rundir.writer import RunWriter

ROOT = Path(__file__).parent.parent
DOCUMENT = (ROOT.parent / "docs" / "run-directory.md").read_text()
GOLDEN = RunDir(ROOT / "data" / "run_v1")


def block(name: str) -> str:
    (code,) = re.findall(rf"```python {name}\n(.*?)```", DOCUMENT, re.DOTALL)
    return str(code)


def run(code: str, *arguments: object) -> str:
    return subprocess.run(
        [sys.executable, "-I", "-c", code, *map(str, arguments)], capture_output=True, text=True, check=True, timeout=60
    ).stdout


def test_the_documents_writer_makes_a_run_that_we_read(tmp_path: Path) -> None:
    code = block("writer")
    assert not re.search(r"qig|msgspec", code)
    assert run(code, tmp_path / "foreign-1") == ""
    where = RunDir(tmp_path / "foreign-1")
    manifest = read_manifest(where)
    assert (manifest.id, manifest.program, manifest.state, manifest.exit_code) == ("foreign-1", "foreign", "exited", 0)
    found = read_all(where.telemetry(), Sample)
    assert [(s.seq, s.step) for s in found if isinstance(s, Sample)] == [(n, n) for n in range(100)]
    assert found[1].m == {"loss": 3.92}  # type: ignore[union-attr]  # all are samples, as just seen
    assert read_document(where.heartbeat, Heartbeat).beat == 99
    assert BeatWatch(where).look(manifest).text == "EXITED 0"
    # And our writer goes on with it.
    with RunWriter.reopen(where) as writer:
        assert writer.telemetry.log(100, {"loss": 0.5}) == 100


def test_the_documents_reader_reads_the_golden_run() -> None:
    code = block("reader")
    assert not re.search(r"qig|msgspec", code)
    lines = run(code, GOLDEN.path).splitlines()
    assert len(lines) == 141
    assert lines[0].startswith("0 0 loss=5.0 grad_norm=1.0 ")
    assert lines[63].startswith("63 63 loss=nan grad_norm=inf ")
    assert lines[63].endswith(" phi=-inf")
    assert lines[-1] == "20261201-000000-5eed01 exited 1 unreadable"


def test_the_documents_basin_is_a_point_of_the_simplex() -> None:
    room: dict[str, object] = {}
    code = block("basin")
    assert len(code.splitlines()) == 5
    exec(code, room)
    first = next(s for s in read_all(GOLDEN.telemetry(), Sample) if isinstance(s, Sample))
    values = room["basin"](first.basin)  # type: ignore[operator]  # a function, by the line above
    assert len(values) == 64
    assert sum(values) == pytest.approx(1.0, abs=1e-15)
    assert len(decode_basin(first.basin or "")) == 256


@pytest.mark.parametrize(
    "kind",
    [
        schema.Sample,
        schema.Event,
        schema.Manifest,
        schema.MetricSpec,
        schema.ReferenceLine,
        schema.SessionRecord,
        schema.Heartbeat,
        schema.Command,
        schema.Ack,
        schema.Stage,
        schema.CheckpointManifest,
        schema.FileEntry,
    ],
)
def test_every_key_of_the_format_stands_in_the_document(kind: type[msgspec.Struct]) -> None:
    assert [name for name in kind.__struct_fields__ if not re.search(rf"\b{name}\b", DOCUMENT)] == []


def test_the_numbers_and_words_of_the_code_stand_in_the_document() -> None:
    assert f"{values.MAX_LINE_BYTES} bytes" in DOCUMENT
    assert all(verb in DOCUMENT for verb in schema.VERBS)
    assert (mailbox.MAX_BYTES, mailbox.MAX_FILES_A_POLL) == (64 * 1024, 64)
    assert (liveness.SILENT_AFTER_S, liveness.HUNG_AFTER_S, liveness.BUSY_BECOMES_HUNG_S) == (10.0, 60.0, 600.0)
    assert (liveness.BUSY_AFTER_S, liveness.SLOW_FACTOR, liveness.SLOW_FLOOR_S) == (2.0, 5.0, 1.0)
    assert all(word.value in DOCUMENT for word in liveness.Word)
