"""What is told in a toast, once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qig_core.rundir.liveness import Liveness, Word
from qig_core.rundir.schema import Event, Unreadable
from qig_tui.journal import sentence
from qig_tui.sources.local import LocalSource
from qig_tui.toasts import AT_MOST, STEADY_S, Toaster
from qig_tui.widgets.events import EventList
from tests.tui.runs import open_run, set_condition
from tests.tui.screens import opened, text_of, told, until

LIVE = Liveness(Word.LIVE, "4 ms/step")
SILENT = Liveness(Word.SILENT, "12 s")
HUNG = Liveness(Word.HUNG, "no step for 99 s")
KILLED = Liveness(Word.KILLED, "the process is gone")
EXITED = Liveness(Word.EXITED, "0")


class Watch:
    """A toaster that has had its first look, events with a seq of their own, and a clock."""

    def __init__(self, *history, liveness=LIVE):
        self.toaster = Toaster()
        self.seq = 0
        self.now = 1000.0
        self.liveness = liveness
        assert self.look(*history) == []

    def event(self, kind, severity="info", **data):
        self.seq += 1
        return Event(self.seq, 5.0, kind, self.seq * 10, "s1", severity, None, data)

    def condition(self, state, id="drift", **data):
        known = {"id": id, "metric": "m", "comparison": "<=", "limit": 0.6, "value": 0.7, "cause": ["kappa"]}
        severity = state if state in ("warning", "critical") else "info"
        return self.event("condition", severity, **(known | {"state": state} | data))

    def look(self, *events, after=1.0, liveness=None):
        self.now += after
        self.liveness = liveness or self.liveness
        made = [self.condition(e) if isinstance(e, str) else e for e in events]
        return self.toaster.look(made, self.liveness, now=self.now)

    def titles(self, *events, **how):
        return [toast.title.split(" at ")[0] for toast in self.look(*events, **how)]


def test_what_lay_there_is_no_news_whatever_it_was():
    watch = Watch()
    history = [watch.event("start"), *[watch.condition("critical", f"c{i}") for i in range(20)]]
    history += [watch.event("alert", "critical", text="a"), watch.event("emergency", "critical", cause="x")]
    watch = Watch(*history, watch.event("end", exit_code=70), liveness=KILLED)
    assert watch.look() == []
    assert watch.look(*history) == []


def test_an_alarm_is_told_with_what_moved_first():
    watch = Watch("ok")
    (toast,) = watch.look(event := watch.condition("warning"))
    assert toast.message == sentence(event)
    assert "kappa moved first" in toast.message
    assert (toast.title, toast.severity) == (f"Warning at step {event.step}", "warning")
    (toast,) = watch.look("critical")
    assert (toast.title.split()[0], toast.severity) == ("Critical", "error")
    assert toast.timeout_s > 10


def test_what_a_run_records_while_one_looks_is_told(tmp_path):
    with open_run(tmp_path) as writer:
        set_condition(writer, "critical", id="before")
        source, toaster = LocalSource(writer.run), Toaster()
        first = source.look()
        assert toaster.look(first.events, first.liveness, now=0.0) == []
        set_condition(writer, "ok")
        set_condition(writer, "critical", value=float("nan"), cause=["loss", "drift_rolling"])
        writer.event("checkpoint", step=3, name="a", reason="interval")
        found = source.look()
        (toast,) = toaster.look(found.events, found.liveness, now=1.0)
        assert toast.message == ("drift critical: drift_rolling nan (≤ 0.6 rad), loss moved first, then drift_rolling")
        again = LocalSource(writer.run).look()
        assert toaster.look(again.events, again.liveness, now=2.0) == []


def test_flapping_is_told_once_until_it_was_ok_for_a_minute():
    watch = Watch()
    assert watch.titles("warning") == ["Warning"]
    for _ in range(20):
        assert watch.titles("ok") == []
        assert watch.titles("warning", after=STEADY_S - 1) == []
    assert watch.titles("ok") == []
    assert watch.titles(after=STEADY_S) == []
    assert watch.titles("warning") == ["Warning"]


def test_a_minute_is_a_minute_although_nothing_was_read_in_it():
    watch = Watch("warning")
    watch.look("ok")
    assert watch.titles("warning", after=STEADY_S) == ["Warning"]


def test_what_got_worse_is_told_at_once_and_what_got_better_is_not():
    watch = Watch()
    assert watch.titles("warning") == ["Warning"]
    assert watch.titles("critical") == ["Critical"]
    assert watch.titles("warning") == []
    assert watch.titles("critical") == []
    assert watch.titles("warning") == []
    assert watch.titles(after=STEADY_S) == []
    assert watch.titles("critical") == ["Critical"]


def test_ok_after_critical_is_told_once_when_it_has_held():
    watch = Watch()
    watch.look("critical")
    assert watch.titles("ok") == []
    assert watch.titles("critical", after=STEADY_S - 1) == []
    assert watch.titles("warning") == []
    assert watch.titles("ok", after=STEADY_S) == []
    assert watch.titles(after=STEADY_S - 1) == []
    (toast,) = watch.look()
    assert (toast.title, toast.severity) == ("Ok again", "information")
    assert toast.message.startswith("drift is ok again")
    assert watch.titles(after=10 * STEADY_S) == []


def test_ok_after_a_warning_is_not_told():
    watch = Watch("warning")
    assert watch.titles("ok") == []
    assert watch.titles(after=STEADY_S) == []


def test_of_two_changes_at_once_the_worse_is_told():
    watch = Watch()
    assert watch.titles("warning", "critical", "ok") == ["Critical"]


def test_an_alarm_of_the_history_is_told_only_where_it_gets_worse():
    watch = Watch("warning")
    assert watch.titles("warning") == []
    assert watch.titles("critical") == ["Critical"]


def test_a_start_clears_what_was_told():
    watch = Watch()
    watch.look("critical")
    assert watch.titles(watch.event("start"), "critical") == ["Critical"]


def test_alerts_and_notes_are_told_by_their_severity_and_answers_to_commands_are_not():
    watch = Watch()
    assert watch.look(watch.event("alert", text="advice", id="sleep")) == []
    assert watch.look(watch.event("command", "warning", verb="abort", stage="refused")) == []
    (toast,) = watch.look(watch.event("alert", "warning", text="nothing was pruned"))
    assert (toast.title.split()[0], toast.severity, toast.message) == ("Warning", "warning", "nothing was pruned")
    (toast,) = watch.look(watch.event("note", "critical", text="the thread died"))
    assert (toast.title.split(" at ")[0], toast.severity) == ("Critical: note", "error")
    assert watch.titles(watch.event("soft_reset", "warning", from_step=9, to_step=3)) == ["Warning: soft reset"]
    assert watch.look(watch.event("alert", "warning", id="sleep", text="gone", raised=False)) == []


def test_an_alert_said_again_and_again_is_told_once():
    watch = Watch()
    told = [watch.titles(watch.event("alert", "critical", text="no interval checkpoint"), after=30) for _ in range(9)]
    assert told == [["Critical"], *[[]] * 8]
    assert watch.titles(watch.event("alert", "critical", text="no interval checkpoint"), after=STEADY_S) == ["Critical"]


def test_an_emergency_stays_and_the_end_after_it_says_nothing_new():
    watch = Watch()
    emergency = watch.event("emergency", "critical", cause="drift", checkpoint="c1", exit_code=75)
    (toast,) = watch.look(emergency, watch.event("end", exit_code=75))
    assert (toast.title.split()[0], toast.severity) == ("Emergency", "error")
    assert toast.message == "drift, saved as c1, exit code 75"
    assert toast.timeout_s >= 3600
    assert watch.look(liveness=EXITED) == []


def test_a_stop_that_was_asked_for_is_no_alarm():
    watch = Watch()
    (toast,) = watch.look(watch.event("emergency", cause="command abort", checkpoint="c1", exit_code=76))
    assert (toast.title.split(" at ")[0], toast.severity) == ("Stopped", "information")
    assert toast.timeout_s < 60


@pytest.mark.parametrize(
    ("code", "severity"), [(0, "information"), (76, "information"), (1, "error"), (139, "error"), (None, "warning")]
)
def test_an_end_is_told_by_its_exit_code(code, severity):
    watch = Watch()
    (toast,) = watch.look(watch.event("end", exit_code=code, reason="why"))
    assert toast.severity == severity
    assert "why" in toast.message


def test_a_run_that_is_lost_is_told_as_it_gets_worse_and_once():
    watch = Watch()
    assert watch.titles(liveness=Liveness(Word.SLOW)) == []
    (toast,) = watch.look(liveness=SILENT)
    assert (toast.title, toast.severity) == ("○ SILENT", "warning")
    assert "12 s" in toast.message
    assert watch.titles(liveness=Liveness(Word.SILENT, "13 s")) == []
    (toast,) = watch.look(liveness=HUNG)
    assert (toast.title, toast.severity) == ("✖ HUNG", "error")
    assert watch.titles(liveness=SILENT) == []
    assert watch.titles(liveness=KILLED) == ["✖ KILLED"]
    assert watch.titles(liveness=KILLED) == []


@pytest.mark.parametrize("word", [Word.LIVE, Word.BUSY, Word.PAUSED])
def test_a_run_that_comes_back_is_told_at_once(word):
    watch = Watch()
    watch.look(liveness=HUNG)
    assert watch.look(liveness=Liveness(Word.SLOW, "no step for 99 s")) == []
    back = Liveness(word)
    (toast,) = watch.look(liveness=back)
    assert (toast.title, toast.severity) == (f"{back.glyph} {word} again", "information")
    assert watch.titles(liveness=back) == []


def test_a_run_that_comes_and_goes_is_told_to_be_back_when_it_has_stayed():
    watch = Watch()
    assert watch.titles(liveness=SILENT) == ["○ SILENT"]
    assert watch.titles(liveness=LIVE) == ["● LIVE again"]
    assert watch.titles(liveness=SILENT, after=20) == ["○ SILENT"]
    for _ in range(20):
        assert watch.titles(liveness=LIVE, after=20) == []
        assert watch.titles(liveness=SILENT, after=20) == []
    assert watch.titles(liveness=LIVE) == []
    assert watch.titles(after=STEADY_S - 1) == []
    assert watch.titles() == ["● LIVE again"]


@pytest.mark.parametrize("first", [SILENT, Liveness(Word.SILENT, "no heartbeat yet"), HUNG, KILLED])
def test_what_it_was_at_first_is_no_news_and_nor_is_that_it_lives(first):
    watch = Watch(liveness=first)
    assert watch.titles() == []
    assert watch.titles(liveness=LIVE) == []
    assert watch.titles(liveness=SILENT) == ["○ SILENT"]


def test_a_run_that_was_silent_at_first_and_is_found_dead_is_told():
    watch = Watch(liveness=SILENT)
    assert watch.titles(liveness=KILLED) == ["✖ KILLED"]


def test_a_storm_is_one_toast_that_says_how_many_and_what_moved_first():
    watch = Watch()
    events = [watch.condition("warning", f"w{i}", cause=["loss", "phi"]) for i in range(12)]
    events += [watch.condition("critical", f"c{i}") for i in range(3)]
    (toast,) = watch.look(*events)
    assert toast.title == "15 alarms at once"
    assert toast.message == "12 warnings, 3 critical: c0, c1, c2, w0, w1, w2 and 9 more; loss moved first"
    assert toast.severity == "error"
    assert watch.look(*events) == []


def test_a_storm_beside_an_emergency_does_not_hide_it():
    watch = Watch()
    alarms = [watch.condition("critical", f"c{i}") for i in range(50)]
    notes = [watch.event("note", "warning", text=f"n{i}") for i in range(50)]
    toasts = watch.look(*notes, *alarms, watch.event("emergency", "critical", cause="c", exit_code=75))
    assert len(toasts) == AT_MOST
    assert {toast.title.split(" at ")[0] for toast in toasts[:2]} == {"Emergency", "50 alarms"}
    assert toasts[2].message == "n0\nand 49 more: see the events"


def test_a_storm_over_many_looks_is_told_together_when_there_is_room_again():
    watch = Watch()
    told = [toast for i in range(50) for toast in watch.look(watch.condition("warning", f"w{i}"), after=0.1)]
    assert len(told) == 6
    (late,) = watch.look(after=10)
    assert late.title == "44 alarms at once"
    assert watch.look(after=10) == []


def test_what_is_urgent_does_not_wait_for_room():
    watch = Watch()
    for i in range(10):
        watch.look(watch.condition("warning", f"w{i}"), after=0.1)
    assert watch.titles(after=0.1, liveness=HUNG) == ["4 alarms", "✖ HUNG"]


def test_an_alarm_that_had_to_wait_is_told():
    watch = Watch()
    for i in range(6):
        assert len(watch.look(watch.condition("warning", f"w{i}"), after=0.1)) == 1
    assert watch.look(watch.condition("warning", "late"), after=0.1) == []
    assert watch.look(watch.condition("critical", "late"), after=0.1) == []
    (toast,) = watch.look(after=10)
    assert toast.message.startswith("late critical")
    assert watch.look(after=10) == []


def test_what_is_no_record_is_passed_over_and_a_file_without_sessions_is_told():
    watch = Watch()
    assert watch.look(Unreadable("events.jsonl", 3, "torn", b"{")) == []
    bare = Event(77, 0.0, "alert", severity="critical", data={"text": "a"})
    (toast,) = watch.look(bare)
    assert toast.title == "Critical"
    assert watch.look(bare) == []


def test_what_comes_from_a_file_is_escaped_and_bounded():
    watch = Watch()
    data = {"id": "\x1b[31m" * 99, "text": "\u202e[bold]\x07" * 999, "cause": ["\x1b"], "exit_code": "\x00", "state": 5}
    events = [
        watch.event(kind, "critical", **data) for kind in ("alert", "condition", "emergency", "end", "\x1b]0;x\x07")
    ]
    events.append(watch.condition("critical", "\x1b" * 500, metric="\n" * 500, unit="\x00"))
    events.append(watch.event("note", "\x1b[0m", text=["\x1b"]))
    toasts = [toast for event in events for toast in watch.look(event, liveness=Liveness(Word.LIVE), after=20)]
    toasts += watch.look(liveness=Liveness(Word.HUNG, "\x1b[2J" * 99))
    assert len(toasts) >= 5
    for toast in toasts:
        assert (toast.title + toast.message).isprintable()
        assert len(toast.title) <= 60
        assert len(toast.message) <= 300


KINDS = st.sampled_from(["condition", "alert", "note", "emergency", "end", "start", "checkpoint", "odd"])
EVENTS = st.builds(
    lambda seq, session, kind, severity, name, state: Event(
        seq,
        0.0,
        kind,
        seq,
        session,
        severity,
        None,
        {"id": name, "state": state, "exit_code": seq % 3, "text": f"t{seq}"},
    ),
    st.integers(-3, 40),
    st.sampled_from(["a", "b", None]),
    KINDS,
    st.sampled_from(["info", "warning", "critical", "?"]),
    st.sampled_from(["x", "y", "z", ""]),
    st.sampled_from(["ok", "warning", "critical", "unarmed"]),
)
LOOKS = st.lists(
    st.tuples(
        st.lists(EVENTS, max_size=12), st.sampled_from([LIVE, SILENT, HUNG, KILLED, EXITED]), st.floats(0.0, 100.0)
    ),
    max_size=12,
)


@given(LOOKS)
def test_nothing_is_told_twice_and_never_much_at_once(looks):
    toaster, now = Toaster(), 0.0
    events, total = [], 0
    for found, liveness, after in looks:
        now += after
        told = toaster.look(found, liveness, now=now)
        assert len(told) <= AT_MOST
        total += len(told)
        events += found
    records = {(e.session, e.seq) for e in events}
    # Each record at most one toast; the run's life and good news of a condition at most one a look and condition.
    assert total <= len(records) + len(looks) * 5
    # The file is read again from its start, in any order and at any time: only what waited is still told.
    liveness = looks[-1][1] if looks else LIVE
    for _ in range(5):
        now += 2 * STEADY_S
        toaster.look([], liveness, now=now)
    assert toaster.look(events, liveness, now=now + STEADY_S) == []
    assert toaster.look(events[::-1], liveness, now=now + 9 * STEADY_S) == []


@given(st.lists(st.integers(0, 60), max_size=200))
def test_a_record_is_new_exactly_once_in_whatever_order(seqs):
    toaster = Toaster()
    assert [toaster._seen.add("s", seq) for seq in seqs] == [seq not in seqs[:i] for i, seq in enumerate(seqs)]


def test_what_was_seen_takes_little_memory_however_long_or_hostile_a_file_is():
    seen = Toaster()._seen
    assert all(seen.add("s", seq) for seq in range(20_000))
    assert not any(seen.add("s", seq) for seq in range(20_000))
    assert sum(map(len, seen._ranges.values())) == 1
    assert all(seen.add(f"h{seq % 7}", 2 * seq) for seq in range(2000))
    assert sum(map(len, seen._ranges.values())) <= 512


async def test_an_alarm_is_told_once_and_what_lay_there_is_not(writer):
    set_condition(writer, "critical", id="before")
    async with opened(writer.run) as (app, pilot):
        assert told(app) == []
        set_condition(writer, "critical", value=0.7, cause=["kappa", "drift_rolling"])
        await until(pilot, lambda: bool(told(app)))
        set_condition(writer, "ok")
        set_condition(writer, "critical", value=0.8)
        await until(pilot, lambda: "0.800" in text_of(app.screen.query_one(EventList)))
        assert told(app) == [
            "Critical at step 0: drift critical: drift_rolling 0.700 (≤ 0.6 rad), kappa moved first, then drift_rolling"
        ]


async def test_a_storm_does_not_fill_the_screen_and_markup_is_text(writer):
    async with opened(writer.run) as (app, pilot):
        writer.event("alert", severity="critical", text="[bold]no checkpoint")
        await until(pilot, lambda: told(app) == ["Critical: [bold]no checkpoint"])
        for i in range(30):
            set_condition(writer, "critical" if i < 3 else "warning", id=f"c{i:02}")
        await until(pilot, lambda: any("alarms at once" in words for words in told(app)))
        # However the looks fall between what was written.
        assert len(told(app)) <= 8
