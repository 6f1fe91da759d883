"""What is read of a run is what it recorded, as it was done last."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from qig_core.experiments.reading import Recorded
from qig_core.rundir.schema import Event
from tests.experiments.recorded import charlie, opened, points, tell_phase


def test_what_was_done_again_counts_as_it_was_done_last(tmp_path: Path) -> None:
    with opened(tmp_path, "run") as writer:
        for step, phi in ((0, 0.1), (1, 0.2), (2, 0.3), (3, 0.4), (1, 0.9), (2, 0.8)):
            writer.telemetry.log(step, {"phi": phi})
    assert Recorded(writer.run).curve("phi") == {0: 0.1, 1: 0.9, 2: 0.8}


def test_an_evaluation_without_a_finite_value_is_no_point_but_is_counted(tmp_path: Path) -> None:
    basin = points(0)[0].astype("<f4").tobytes()
    with opened(tmp_path, "run") as writer:
        tell_phase(writer, "dormant", 0, 5)
        stream = writer.stream("control")
        stream.log(0, {"phi": 0.1}, basin=basin)
        stream.log(1, {"phi": math.nan})
        stream.log(2, {"phi": None}, basin=basin)
        stream.log(3, {"loss_heldout": 2.0})
        stream.log(3, {"loss_heldout": 2.1})
        stream.log(4, {"loss": 1.0})
        stream.log(6, {"phi": math.nan})
    run = Recorded(writer.run)
    assert run.curve("phi", "control") == {0: 0.1}
    assert run.missing("dormant", "phi", "control") == 3, "not at step 4, where nobody looked, nor after the phase"
    assert run.missing("awakening", "phi", "control") == 0


def test_a_phase_is_as_it_was_told_of_last(tmp_path: Path) -> None:
    with opened(tmp_path, "run") as writer:
        for step, state in ((0, "begun"), (10, "judged"), (20, "passed")):
            tell_phase(writer, "dormant", 0, step, state)
        tell_phase(writer, "awakening", 21, 21, "begun")
        tell_phase(writer, "awakening", 21, 30, "failed", "too slow")
    phases = Recorded(writer.run).phases
    assert (phases["dormant"].first, phases["dormant"].last, phases["dormant"].state) == (0, 20, "passed")
    assert (phases["awakening"].first, phases["awakening"].last, phases["awakening"].reason) == (21, 30, "too slow")


def test_a_phase_that_was_taken_back_never_was(tmp_path: Path) -> None:
    with opened(tmp_path, "run") as writer:
        tell_phase(writer, "dormant", 0, 20, "passed")
        tell_phase(writer, "awakening", 21, 30)
        tell_phase(writer, "dormant", 0, 10)
        for step in range(0, 31, 10):
            writer.telemetry.log(step, {"phi": 0.5})
    run = Recorded(writer.run)
    assert list(run.phases) == ["dormant"]
    assert run.within("dormant", "phi") == {0: 0.5, 10: 0.5}
    assert run.within("awakening", "phi") == {}


def test_basins_are_those_that_were_measured(tmp_path: Path) -> None:
    first, second = points(0)
    with opened(tmp_path, "run") as writer:
        for step, basin in ((0, first), (5, second)):
            writer.stream("gary1").log(step, {"phi": 0.1}, basin=basin.astype("<f4").tobytes())
        writer.stream("gary1").log(6, {"phi": 0.1})
    found = Recorded(writer.run).basins("gary1")
    assert list(found) == [0, 5]
    assert np.allclose(found[5], second, rtol=1e-6)
    assert found[5].sum() == pytest.approx(1.0, abs=1e-12)


def test_lines_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    with opened(tmp_path, "run") as writer:
        writer.telemetry.log(0, {"phi": 0.1})
    for path in (writer.run.telemetry(), writer.run.events):
        with path.open("ab") as file:
            file.write(b"{broken\n")
    run = Recorded(writer.run)
    assert run.curve("phi") == {0: 0.1}
    assert all(isinstance(event, Event) for event in run.events)
    assert run.facts()["unreadable_lines"] == 2


def test_facts_name_no_path_no_host_and_no_person(tmp_path: Path) -> None:
    run = charlie(tmp_path)
    text = json.dumps(run.facts())
    manifest = run.manifest
    for secret in (str(tmp_path), manifest.cwd, manifest.user, manifest.sessions[0].host):
        assert not secret or f'"{secret}' not in text
    assert run.facts()["duration_s"] == pytest.approx(0.0, abs=60.0)
