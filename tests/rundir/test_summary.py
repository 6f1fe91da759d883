"""A run in a few facts, whatever its files are."""

import os
from pathlib import Path

import pytest

from qig_core.rundir.layout import RunDir
from qig_core.rundir.schema import Manifest
from qig_core.rundir.summary import summarise
from qig_core.rundir.writer import RunWriter


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    with RunWriter.create(tmp_path, Manifest(id="r1")) as writer:
        writer.telemetry.log(7, {"phi": 0.5})
        writer.event("condition", id="drift", state="ok")
    return writer.run


def test_a_telemetry_that_cannot_be_read_is_a_sentence_and_the_rest_is_known(run: RunDir) -> None:
    run.telemetry().unlink()
    run.telemetry().mkdir()
    summary = summarise(run)
    assert summary.error == f"{str(run.telemetry())!r} cannot be read: not a regular file"
    assert summary.liveness is not None
    assert (summary.liveness.text, summary.step, summary.conditions) == ("EXITED 0", None, {"drift": "ok"})
    assert summary.to_dict()["error"] == summary.error


def test_events_on_which_a_read_would_never_end_are_a_sentence_and_the_rest_is_known(run: RunDir) -> None:
    run.events.unlink()
    os.mkfifo(run.events)
    summary = summarise(run)
    assert summary.error == f"{str(run.events)!r} cannot be read: not a regular file"
    assert (summary.step, summary.metrics, summary.conditions) == (7, {"phi": 0.5}, {})


def test_files_that_are_not_there_yet_are_no_error(run: RunDir) -> None:
    run.telemetry().unlink()
    run.events.unlink()
    assert summarise(run).error is None
