import os
import threading

import numpy as np

from qig_core.rundir.reader import read_all
from qig_core.rundir.schema import Sample, Scalars
from qig_tui.picture import RunPicture
from qig_tui.sources import index
from qig_tui.sources.local import LocalSource
from tests.tui.runs import basin, log_steps, open_run


def opened_source(writer, tail_bytes=4096):
    """A source that has read its run whole: the tail, then what lies before it."""
    source, picture = LocalSource(writer.run, tail_bytes=tail_bytes), RunPicture(writer.manifest)
    picture.apply(source.look())
    older = source.backfill(lambda share: None, threading.Event())
    picture.history.prepend(older)
    return source, picture


def found(source, step, branches):
    return source.index.moment(step, branches).basins


def test_the_steps_of_a_range_are_read_again_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(index, "_STRETCH", 4096)
    with open_run(tmp_path) as writer:
        log_steps(writer, 0, 400)
        log_steps(writer, 150, 300)
        source, _ = opened_source(writer)
        log_steps(writer, 300, 320)
        source.look()
        everything = [r for r in read_all(writer.run.telemetry(), Scalars) if isinstance(r, Scalars)]
        assert len(source.index) > 1
        for first, last in [(0, 0), (140, 160), (200, None), (399, 500), (1000, None)]:
            wanted = [r.seq for r in everything if r.step >= first and (last is None or r.step <= last)]
            found = [r.seq for r in source.index.scalars(first, last)]
            assert [seq for seq in found if seq in set(wanted)] == wanted
            assert found == sorted(found)
        source.close()


def test_a_range_that_is_too_long_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(index, "MAX_READ", 1000)
    with open_run(tmp_path) as writer:
        log_steps(writer, 0, 100)
        source, _ = opened_source(writer)
        assert source.index.scalars(0, None) is None
        source.close()


def test_the_basin_of_any_step_is_read_on_demand_and_never_one_of_a_branch_that_was_left(tmp_path):
    with open_run(tmp_path) as writer:
        log_steps(writer, 0, 900)
        writer.telemetry.log(500, {"phi": 0.5}, basin=basin(99))
        log_steps(writer, 501, 530)
        source, picture = opened_source(writer)
        branches = picture.history.branches
        (step, values), (before, _) = found(source, 239, branches)
        assert (step, before) == (230, 220)
        expected = np.frombuffer(basin(230 / 50), "<f4").astype(np.float64)
        assert np.allclose(values, expected / expected.sum())
        (step, values), (before, _) = found(source, 509, branches)
        assert (step, before) == (500, 490)
        expected = np.frombuffer(basin(99), "<f4").astype(np.float64)
        assert np.allclose(values, expected / expected.sum())
        assert [step for step, _ in found(source, 5, branches)] == [0]
        assert source.index.moment(-1, branches) is None
        source.close()


def test_a_file_that_was_replaced_is_indexed_anew(tmp_path):
    with open_run(tmp_path) as writer:
        log_steps(writer, 0, 100)
        source = LocalSource(writer.run)
        source.look()
        lines = writer.run.telemetry().read_bytes().splitlines(keepends=True)
    other = writer.run.path / "other"
    other.write_bytes(b"".join(lines[:7]))
    os.replace(other, writer.run.telemetry())
    source.look()
    assert [r.step for r in source.index.scalars(0, None)] == list(range(7))
    assert [r.step for r in read_all(writer.run.telemetry(), Sample)] == list(range(7))
    source.close()
