"""Alarms folded from events, what was asked of a run, and the files of emergencies: whatever stands in them."""

import json
import math
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qig_core.rundir.atomic import encode_document, write_document
from qig_core.rundir.layout import RunDir
from qig_core.rundir.liveness import Liveness, Word
from qig_core.rundir.schema import Ack, Command, Event, Manifest, Sample, SessionRecord, Stage
from qig_tui.alarms.episodes import AlarmBook, peak
from qig_tui.alarms.stops import askings, exit_words, of_emergency, stop_view
from qig_tui.alarms.words import blame_text, why_unarmed
from qig_tui.history import History
from qig_tui.journal import condition_of
from qig_tui.picture import RunPicture
from qig_tui.sources.emergencies import read_detail, together
from qig_tui.sources.surroundings import Beside, Surroundings, read_older
from qig_tui.widgets.emergency_view import first_beyond, headline

NAME = "20261128-120000-abcdef"
ID = "ab" * 16


def condition(seq, state, *, name="drift", step=None, session="s1", **data):
    known = {"id": name, "state": state, "metric": "drift_rolling", "comparison": "<=", "limit": 0.6, "unit": "rad"}
    known |= {"value": 0.7 if state in ("warning", "critical") else 0.3, "cause": [], "since_step": step}
    severity = state if state in ("warning", "critical") else "info"
    return Event(
        seq, 1000.0 + seq, "condition", 10 * seq if step is None else step, session, severity, None, known | data
    )


def event(seq, kind, severity="info", **data):
    return Event(seq, 1000.0 + seq, kind, 10 * seq, "s1", severity, None, data)


def book_of(*events):
    book = AlarmBook()
    book.follow(events)
    return book


def told(book):
    """All that a book says, to compare two."""
    return (
        [(a.id, a.count, a.level, a.raised.seq, a.cleared and a.cleared.seq, a.extreme, a.text) for a in book.alarms],
        {name: [turn.event.seq for turn in turns] for name, turns in book.turns.items()},
        book.count,
    )


def test_an_alarm_lasts_from_raised_to_cleared_and_is_as_bad_as_it_ever_was():
    book = book_of(
        condition(1, "ok"),
        condition(2, "warning", cause=["kappa", "drift_rolling"]),
        condition(5, "critical", value=0.9, cause=["kappa", "drift_rolling"]),
        condition(6, "warning", value=0.65),
        condition(9, "ok"),
    )
    (alarm,) = book.alarms
    assert (alarm.level, alarm.raised.seq, alarm.worst.seq) == ("critical", 2, 5)
    assert (alarm.steps, alarm.seconds, alarm.extreme) == (70, 7.0, 0.9)
    assert alarm.blame == "kappa moved first, then drift_rolling"
    assert not alarm.is_open({"drift"})
    assert book.since(condition_of(condition(9, "ok").data, 0)).event.seq == 9


def test_what_is_only_told_again_is_no_other_alarm():
    again = condition(4, "warning", value=0.8, session="s2")
    book = book_of(condition(2, "warning"), event(3, "start"), again, condition(6, "ok", session="s2"))
    (alarm,) = book.alarms
    assert alarm.extreme == 0.8
    assert alarm.steps == 40
    assert alarm.seconds is None, "two processes may have two clocks"


def test_an_alarm_that_nobody_announces_any_more_does_not_stand():
    (alarm,) = book_of(condition(2, "warning")).alarms
    assert alarm.is_open({"drift"})
    assert not alarm.is_open(set())


def test_a_return_to_an_earlier_step_has_lasted_no_number_of_steps():
    (alarm,) = book_of(condition(2, "critical", step=500), condition(3, "ok", step=400)).alarms
    assert alarm.steps is None
    assert alarm.seconds == 1.0


def test_every_time_is_counted_and_advice_stands_apart():
    book = book_of(
        condition(1, "warning"),
        condition(2, "ok"),
        event(3, "alert", id="drift", text="drift: sleep advised", raised=True),
        condition(4, "warning"),
        event(5, "alert", id="drift", text="drift: sleep advised", raised=False),
        event(6, "note", "warning", text="nothing of the process ran for 70 s"),
        event(7, "command", "warning", verb="pause", stage="refused"),
        event(8, "emergency", "critical", cause="limit drift"),
    )
    assert [(a.id, a.level, a.count, book.times(a)) for a in book.alarms] == [
        ("drift", "warning", 1, 2),
        ("drift", "advice", 1, 1),
        ("drift", "warning", 2, 2),
        ("note", "warning", 1, 1),
    ]
    advice = book.alarms[1]
    assert (advice.text, advice.seconds) == ("sleep advised", 2.0)


TURNS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["unarmed", "ok", "warning", "critical"])), max_size=30
)


@given(TURNS, st.lists(st.integers(0, 30), max_size=6))
def test_followed_in_pieces_and_back_and_forth_in_time_a_book_is_as_if_read_at_once(turns, stops):
    events = [condition(seq, state, name=name) for seq, (name, state) in enumerate(turns)]
    book = AlarmBook()
    for stop in (*stops, len(events)):
        book.follow(events[:stop])
        assert told(book) == told(book_of(*events[:stop]))


@given(TURNS, st.integers(0, 30), st.integers(0, 30))
def test_what_the_journal_has_dropped_is_taken_from_the_file_once(turns, dropped, read_until):
    events = [condition(seq, state, name=name) for seq, (name, state) in enumerate(turns)]
    dropped = min(dropped, max(len(events) - 1, 0))
    book = AlarmBook()
    book.follow(events[dropped:], tuple(events[: max(read_until, dropped)]))
    assert told(book) == told(book_of(*events))


def test_a_book_goes_on_where_the_journal_drops_what_it_has_read():
    events = [condition(seq, "warning" if seq % 2 else "ok") for seq in range(40)]
    book = book_of(*events[:20])
    book.follow(events[15:])
    assert told(book) == told(book_of(*events))


def test_the_peak_is_of_the_branch_that_the_alarm_stood_on():
    history = History()
    values = {10: 0.3, 20: 0.7, 30: 0.95, 40: math.nan, 50: 0.4}
    samples = [Sample(i, step, 1000.0 + step, m={"drift_rolling": v}) for i, (step, v) in enumerate(values.items())]
    # It goes back to step 20 and does better.
    samples += [Sample(10 + i, step, 2000.0 + step, m={"drift_rolling": 0.62}) for i, step in enumerate((20, 30, 50))]
    history.add(samples)
    first, second = book_of(
        Event(1, 1020.0, "condition", 20, data=condition(1, "warning").data),
        Event(2, 1050.0, "condition", 50, data=condition(1, "ok").data),
        Event(3, 2020.0, "condition", 20, data=condition(1, "warning").data | {"value": 0.61}),
    ).alarms
    assert peak(first, history) == 0.95
    assert peak(second, history) == 0.62
    assert peak(second, History()) == 0.61, "of its events, where nothing else is remembered"


def test_of_a_floor_the_peak_is_the_lowest_and_of_an_average_what_the_events_told():
    history = History()
    history.add([Sample(i, i, 1000.0 + i, m={"phi": 0.5 - i / 100}) for i in range(20)])
    floor = {"metric": "phi", "comparison": ">=", "limit": 0.5, "value": 0.4}
    (alarm,) = book_of(condition(5, "critical", step=5, **floor)).alarms
    assert peak(alarm, history) == pytest.approx(0.31)
    (average,) = book_of(condition(5, "critical", step=5, **floor, statistic="average")).alarms
    assert peak(average, history) == 0.4
    (words,) = book_of(condition(5, "critical", metric="phi", comparison="finite", value=None)).alarms
    assert peak(words, history) is None


@pytest.mark.parametrize(
    ("comparison", "cause", "words"),
    [
        ("finite", ["loss", "phi"], "loss, phi not finite"),
        ("measured", ["phi"], "phi not measured any more"),
        ("<=", ["drift_rolling"], "drift_rolling alone"),
        ("<=", ["loss", "drift_rolling"], "loss moved first, then drift_rolling"),
        ("<=", [], ""),
    ],
)
def test_the_cause_is_told_in_words(comparison, cause, words):
    assert blame_text(condition_of(condition(1, "warning", comparison=comparison, cause=cause).data, 1)) == words


LIMITS = [
    {"id": "phi_floor", "baseline": 50, "armed_after_steps": 200},
    {"id": "spike", "window": 100},
    {"id": "fit", "armed_at": 0.9, "armed_held": 3},
    {"id": "odd", "window": "many", "armed_after": True, "armed_at": "x"},
    "nonsense",
]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("phi_floor", "its limit is made of 50 values from step 200 on"),
        ("spike", "judged after 100 values"),
        ("fit", "judged once it was ≤ 0.9 for 3 in a row"),
        ("odd", "not enough values yet"),
        ("none", "not enough values yet"),
    ],
)
@pytest.mark.parametrize("profile", [{"limits": LIMITS}])
def test_an_unarmed_condition_says_what_it_waits_for(name, words, profile):
    waiting = condition_of({"id": name, "metric": "phi", "comparison": "<="}, None)
    assert why_unarmed(waiting, reasons={}, is_measured=lambda _: True, profile=profile) == words
    assert why_unarmed(waiting, reasons={}, is_measured=lambda _: False, profile={}) == "no value of phi yet"
    reasons = book_of(event(1, "unmeasured", reasons={"phi": "the probe failed"})).reasons
    assert why_unarmed(waiting, reasons=reasons, is_measured=lambda _: True, profile={}) == "no phi: the probe failed"


def stages(asking):
    return [(stage.name, stage.t) for stage in asking.stages]


def test_a_command_is_told_by_its_acknowledgement_with_the_time_of_its_request_where_that_was_seen():
    events = [event(1, "command", id=ID, verb="abort", stage="acting")]
    ack = Ack(ID, "s1", "abort", [Stage("seen", 1000.5, 9), Stage("acting", 1001.0, 10)])
    request = Command(ID, "s1", "abort", 1000.0, by="me@here")
    (asking,) = askings(events, {ID: ack}, (), {ID: request})
    assert stages(asking) == [("requested", 1000.0), ("seen", 1000.5), ("acting", 1001.0)]
    assert (asking.is_stop, asking.by, asking.ended, asking.origin) == (True, "me@here", False, 1000.0)
    (asking,) = askings(events, {ID: ack}, (), {})
    assert stages(asking)[0] == ("requested", None)
    assert (asking.origin, asking.is_timed_from_request) == (1000.5, False)
    (asking,) = askings(events, {}, (), {})
    assert stages(asking) == [("requested", None), ("acting", 1001.0)]


def test_a_request_by_a_clock_that_is_another_is_no_origin():
    ack = Ack(ID, "s1", "abort", [Stage("seen", 1000.5, 9)])
    (asking,) = askings([], {ID: ack}, (), {ID: Command(ID, "s1", "abort", 5e9)})
    assert asking.origin == 1000.5


def test_what_nobody_has_seen_waits_and_what_is_no_command_was_refused():
    waiting = Command(ID, "s1", "soft_reset", 2000.0, by="me@here")
    rejected = event(3, "command", "warning", name="evil.txt", reason="not named by a command id")
    first, second = askings([rejected], {}, [waiting], {ID: waiting})
    assert (first.title, stages(first), first.ended) == ("soft reset", [("requested", 2000.0)], False)
    assert (second.title, second.stages[-1].name, second.ended) == ("evil.txt", "refused", True)


@pytest.mark.parametrize(
    ("code", "words"),
    [(0, "it finished"), (75, "a limit stopped it"), (143, "SIGTERM stopped it"), (99, ""), (None, "")],
)
def test_an_exit_code_in_words(code, words):
    assert exit_words(code) == words


def viewed(word, *, state="running", code=None, **options):
    session = SessionRecord("s1", 1000.0, 4711, "elsewhere")
    picture = RunPicture(Manifest(id="r", state=state, exit_code=code, ended_t=1000.0, sessions=[session]))
    picture.liveness = Liveness(word)
    known = {"read_only": False, "web": False, "is_past": False}
    return stop_view(picture, Beside(lock=None, process=None), [], [], **(known | options))


@pytest.mark.parametrize(
    ("word", "options", "verdict", "words"),
    [
        (Word.LIVE, {}, "possible now", "a asks process 4711 on elsewhere to stop"),
        (Word.LIVE, {"read_only": True}, "read only", "every command is disabled"),
        (Word.HUNG, {}, "doubtful now", "and then a signal is offered"),
        (Word.SILENT, {"web": True}, "doubtful now", "it may not hear this."),
        (Word.KILLED, {}, "not possible", "there is no trainer to ask"),
    ],
)
def test_whether_the_run_can_be_stopped_now_is_said_with_who_would_do_it(word, options, verdict, words):
    view = viewed(word, **options)
    assert view.verdict == verdict
    assert words in view.facts[0][1]


def test_how_a_run_ended_is_told_with_what_proves_it_and_not_in_the_past():
    ended = viewed(Word.EXITED, state="exited", code=77)
    assert "exit code 77: it was stopped, and the emergency checkpoint failed" in ended.end
    assert [known for known, _ in ended.proof] == [True, True, None]
    assert not ended.is_moving, "nothing more is awaited of it"
    assert viewed(Word.LIVE).is_moving
    killed = viewed(Word.KILLED)
    assert "never told of an end" in killed.end
    assert killed.proof[0] == (None, "run.json still says running")
    assert viewed(Word.EXITED, state="exited", code=77, is_past=True).end == ""


def emergency(folder, content, name=NAME):
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))


def look(run):
    return Surroundings(run).look(Manifest(id="r"))


@pytest.mark.parametrize("missing", ["emergencies", "mailbox"])
def test_a_run_without_these_folders_has_none_of_it(tmp_path, missing):
    found = look(RunDir(tmp_path))
    assert (found.emergencies, found.problem, found.acks, found.waiting, found.lock) == ((), "", {}, (), None)


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = (
    "id session step t cause exit_code checkpoint note stages samples conditions versions traceback fingerprint".split()
)


@settings(max_examples=50)
@given(st.dictionaries(st.sampled_from(FIELDS), ODD))
def test_whatever_stands_in_an_emergency_it_is_told(tmp_path_factory, content):
    run = RunDir(tmp_path_factory.mktemp("run"))
    emergency(run.emergencies, json.dumps(content))
    (brief,) = look(run).emergencies
    detail = read_detail(run, brief)
    headline(detail)
    if brief.stages:
        of_emergency(brief)
    stop_view(RunPicture(Manifest(id="r")), None, [], [brief], read_only=False, web=False, is_past=False)


KEYS = (
    "id verb stage state metric cause raised text reasons name reason t value limit checkpoint exit_code note".split()
)
KINDS = st.sampled_from(["condition", "alert", "unmeasured", "start", "command", "emergency", "note", "odd"])


@settings(max_examples=50)
@given(st.lists(st.tuples(KINDS, st.dictionaries(st.sampled_from(KEYS), ODD), st.text(max_size=8)), max_size=6))
def test_whatever_stands_in_an_event_it_is_folded(found):
    events = [
        Event(i, float(i), kind, i, "s", level or "critical", None, data) for i, (kind, data, level) in enumerate(found)
    ]
    book = book_of(*events)
    for alarm in book.alarms:
        peak(alarm, History())
    together((), [event for event in events if event.kind == "emergency"])
    askings(events, {}, (), {})


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"t": NaN}', "\udcff", '"x"'])
def test_a_record_that_cannot_be_read_says_why_and_its_event_tells_the_rest(tmp_path, content):
    run = RunDir(tmp_path)
    run.emergencies.mkdir()
    (run.emergencies / f"{NAME}.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    found = look(run).emergencies
    assert f"emergencies/{NAME}.json" in found[0].problem
    told_by = event(5, "emergency", "critical", id=NAME, cause="limit drift: too far", checkpoint=None, exit_code=75)
    (one,) = together(found, [told_by])
    assert (one.kind, one.cause, one.exit_code, one.step) == ("limit", "drift: too far", 75, 50)
    assert one.problem
    assert read_detail(run, one).brief.problem


def test_devices_links_and_foreign_names_are_passed_over_or_refused(tmp_path):
    run = RunDir(tmp_path)
    run.emergencies.mkdir()
    os.mkfifo(run.emergencies / f"{NAME}.json")
    os.mkfifo(run.emergencies / f"{NAME}.stacks.txt")
    (run.emergencies / "..json").write_text("{}")
    (run.emergencies / "a b.json").write_text("{}")
    (brief,) = look(run).emergencies
    assert brief.problem
    assert read_detail(run, brief).stacks.startswith("cannot be read")


def test_stacks_without_a_record_are_a_hang_and_are_cut_where_they_are_long(tmp_path):
    run = RunDir(tmp_path)
    run.emergencies.mkdir()
    (run.emergencies / f"{NAME}.stacks.txt").write_text("Thread 1\n" * 100_000)
    (brief,) = look(run).emergencies
    assert (brief.kind, brief.has_record, brief.severity) == ("hang", False, "warning")
    detail = read_detail(run, brief)
    assert detail.stacks_are_cut
    assert len(detail.stacks) == 1 << 18


def test_a_file_that_was_replaced_is_read_again(tmp_path):
    run = RunDir(tmp_path)
    around = Surroundings(run)
    emergency(run.emergencies, {"step": 1, "note": ""})
    assert around.look(Manifest(id="r")).emergencies[0].step == 1
    emergency(run.emergencies, {"step": 2, "note": "longer"})
    assert around.look(Manifest(id="r")).emergencies[0].step == 2


def test_every_answer_is_seen_however_often_was_looked_before(tmp_path):
    run = RunDir(tmp_path)
    run.mailbox_out.mkdir(parents=True)
    around = Surroundings(run)
    for count in range(4):
        for _ in range(3):
            assert len(around.look(Manifest(id="r")).acks) == count
        ack = Ack(f"{count:032x}", "s1", "pause", [Stage("seen", 1.0)])
        write_document(run.ack(ack.id), encode_document(ack))
    ack.stages.append(Stage("done", 2.0))
    write_document(run.ack(ack.id), encode_document(ack))
    assert around.look(Manifest(id="r")).acks[ack.id].ended


def test_only_what_lies_before_and_matters_is_read_again_from_the_events(tmp_path):
    run = RunDir(tmp_path)
    known = [condition(1, "ok"), event(2, "checkpoint", name="a"), condition(3, "warning"), condition(4, "ok")]
    lines = [json.dumps({"seq": e.seq, "t": e.t, "kind": e.kind, "step": e.step, "data": e.data}) for e in known]
    run.events.write_text("\n".join([lines[0], "not json", *lines[1:]]) + "\n")
    assert [e.seq for e in read_older(run, 4)] == [1, 3]


def test_the_step_from_which_on_a_value_lies_beyond_is_that_of_the_last_stretch(tmp_path):
    values = [0.1, 0.9, 0.1, 0.8, None, 0.7]
    samples = [{"step": i, "t": 1.0, "m": {} if v is None else {"drift_rolling": v}} for i, v in enumerate(values)]
    alarmed = condition(1, "critical").data
    run = RunDir(tmp_path)
    emergency(run.emergencies, {"samples": samples, "conditions": [alarmed]})
    detail = read_detail(run, look(run).emergencies[0])
    assert first_beyond(detail.samples, "drift_rolling", detail.conditions[0]) == 3
    assert headline(detail) == ["drift_rolling"]
