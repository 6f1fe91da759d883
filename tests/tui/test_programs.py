"""Phases and reports as their events tell them: read from anybody's data, folded, said in a line."""

import math

import pytest

from qig_core.rundir.schema import Event
from qig_tui.events_filter import Listing, routine_reason
from qig_tui.journal import Journal, sentence
from qig_tui.programs.constellation import report_of
from qig_tui.programs.data import phase_data, report_data
from qig_tui.programs.phases import PhaseBook, current, in_line, phase_of
from tests.tui.programs import CHARLIE, dormant_guards, report


def phase(seq, step, name="dormant", index=1, state="judged", guards=None, **data):
    known = {"name": name, "index": index, "of": 3, "state": state, "since_step": 0, "earliest_step": 100}
    guards = dormant_guards(step) if guards is None else guards
    return Event(seq, 0.0, "phase", step=step, data=known | {"latest_step": 180, "guards": guards} | data)


def ocean(seq, step, count=3, **changes):
    return Event(seq, 0.0, "ocean", step=step, data=report(count, step, **changes))


def test_a_guard_tells_its_value_limit_and_margin():
    found = phase_of(phase(0, 80))
    zero, fell, control = found.guards
    assert (zero.state, zero.bound, zero.margin) == ("ok", "< 0.01", 1.0)
    assert (fell.state, fell.bound, fell.margin) == ("open", "≥ 2.3 nats", 0.0)
    assert (control.state, control.margin) == ("ok", 1.0)
    assert found.counts == "2 of 3 guards hold, 1 open"
    assert found.span == "may end from 100, must by 180"
    assert found.share(45) == 0.25
    assert in_line(found).startswith("phase 1 of 3, dormant since 0: 2 of 3 guards hold, 1 open (judged at 80);")


def test_a_guard_without_a_value_says_why_and_its_kind_is_kept():
    guards = [
        {"id": "a", "value": None, "reason": "not yet", "state": "unknown"},
        {"id": "b", "value": None, "limit": 1},
    ]
    found = phase_of(phase(0, 1, guards=guards, nonfinite={"guards.1.value": "nan"}))
    assert found.guards[0].why == "not yet"
    assert math.isnan(found.guards[1].value)
    assert found.guards[1].margin is None
    assert phase_data(found)["guards"][1]["value"] == "nan"


def test_a_phase_event_of_before_1_4_is_no_phase_and_reads_as_it_did():
    old = Event(0, 0.0, "phase", step=8, data={"name": "awakening", "guards": ["nonfinite", "divergence"]})
    assert phase_of(old) is None
    book = PhaseBook()
    book.add(old)
    assert not book
    assert book.all({}) == []
    assert sentence(old) == "name awakening · guards ['nonfinite', 'divergence']"


def test_the_phases_are_those_told_of_and_those_to_come_as_the_configuration_plans_them():
    book = PhaseBook()
    book.add(phase(0, 120, state="passed"))
    book.add(phase(1, 140, "awakening", 2))
    told, now, to_come = book.all(CHARLIE)
    assert [each.state for each in (told, now, to_come)] == ["passed", "judged", "to come"]
    assert (told.told, to_come.name) == ("passed at 120: all guards hold", "demonstration")
    assert to_come.told == "to come: at least 20 steps"
    assert current(book.all(CHARLIE)) is now
    assert book.all({})[2].told == "to come", "nothing is planned that is not recorded"


def test_going_back_to_an_earlier_phase_forgets_the_later_ones():
    book = PhaseBook()
    for index, name in enumerate(("dormant", "awakening", "demonstration"), 1):
        book.add(phase(index, 10 * index, name, index, "passed"))
    book.add(phase(9, 15, "awakening", 2))
    assert [each.state for each in book.all({})] == ["passed", "judged", "to come"]


def test_a_phase_of_another_program_keeps_its_name_and_the_others_have_none():
    book = PhaseBook()
    book.add(phase(0, 1, "warming", 2))
    assert [each.name for each in book.all({})] == ["phase 1", "warming", "phase 3"]
    assert [each.state for each in book.all({})] == ["passed", "judged", "to come"]


def test_a_report_tells_pairs_the_nearest_first_and_which_are_under_the_floor():
    found = report_of(ocean(0, 100, 4))
    assert [(pair.first, pair.second) for pair in found.pairs][:1] == [(0, 1)]
    assert len(found.pairs) == 3, "of gary3 no distance is known"
    assert [pair.rad for pair in found.too_near] == [0.012]
    assert found.garys[2].remarks == "basin: not measured; phi: nan"
    assert found.garys[0].remarks == "left alone for 7 more reports"
    assert found.garys[1].remarks == "loss up since 40"
    assert found.advice[0].said == "drift 0.510 ≥ 0.48 rad"
    assert report_data(found)["distances"][2] == [None, None, None, None]


def test_a_report_that_says_what_the_one_before_said_is_no_news():
    journal = Journal()
    journal.add(ocean(i, 10 * i) for i in range(11))
    told = [event.step for event in journal.events]
    # First of all, at the rungs above witness, and as two come under the floor.
    assert told == [0, 40, 80, 100]
    assert journal.report.step == 100
    journal.add([ocean(20, 110, sound=False)])
    assert journal.events[-1].step == 110


def test_guards_that_are_as_before_are_no_news_and_a_turn_of_the_phase_always_is():
    journal = Journal()
    journal.add([phase(0, 0, state="begun", guards=[]), *(phase(i, 20 * i) for i in range(1, 6))])
    journal.add([phase(6, 120, state="passed"), phase(7, 130, "awakening", 2, "begun", [])])
    assert [event.step for event in journal.events] == [0, 20, 100, 120, 130]
    assert current(journal.phases.all({})).name == "awakening"


def test_a_copy_of_a_journal_goes_its_own_way():
    journal = Journal()
    journal.add([phase(0, 0), ocean(1, 10)])
    copy = journal.copy()
    journal.add([phase(2, 120, "awakening", 2), ocean(3, 20)])
    assert len(copy.phases.all({})) == 3
    assert current(copy.phases.all({})).name == "dormant"
    assert copy.report.step == 10


def test_reports_and_passages_stand_together_in_the_list_and_an_unsound_ocean_by_itself():
    listing = Listing()
    events = [ocean(i, 10 * i) for i in range(4)]
    events += [Event(4 + i, 0.0, "generated", step=i, data={"prompt": "a", "text": "b"}) for i in range(3)]
    listing.follow(events)
    assert [(row.event.kind, row.count) for row in listing.rows] == [("ocean", 4), ("generated", 3)]
    assert routine_reason(ocean(9, 9, sound=False)) is None


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (phase(0, 120, state="passed"), "dormant (1 of 3) passed: all guards hold"),
        (phase(0, 9, state="failed", reason="Φ 0.2, must be < 0.01"), "dormant (1 of 3) failed: Φ 0.2, must be < 0.01"),
        (phase(0, 0, state="begun", guards=[]), "dormant (1 of 3) begun; may end from 100, must by 180"),
        (ocean(0, 0), "3 Garys, nearest two 0.400 rad; nothing is recommended"),
        (
            ocean(0, 100),
            "3 Garys, nearest two 0.0120 rad; 1 pair under the floor; ▲ warn: sleep gary2",
        ),
        (
            ocean(0, 0, sound=False),
            "the Ocean is NOT as it was born; 3 Garys, nearest two 0.400 rad; nothing is recommended",
        ),
        (Event(0, 0.0, "generated", data={"prompt": "a\x1b[2J", "text": "b\n"}), "a\\x1b[2J ▸ b\\x0a"),
        (
            Event(
                0,
                0.0,
                "intervention",
                data={
                    "verb": "perturb",
                    "gary": "gary2",
                    "by": "ocean",
                    "before": {"phi": 0.5},
                    "after": {"phi": None},
                    "nonfinite": {"after.phi": "nan"},
                    "bound": {"name": "kl_nats", "value": 0.1, "limit": 0.04, "unit": "nats"},
                    "undone": True,
                    "reason": "too far",
                },
            ),
            "perturb gary2 by ocean: phi 0.500 → nan; kl_nats 0.100, at most 0.04 nats; undone: too far",
        ),
        (Event(0, 0.0, "intervention", data={}), "? ?: nothing more is recorded"),
        (Event(0, 0.0, "ocean", data={"garys": 5}), "garys 5"),
    ],
)
def test_an_event_of_a_program_is_a_line(event, words):
    assert sentence(event) == words
