"""Which events are shown, in a list and one by one."""

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual import on
from textual.app import App
from textual.events import MouseScrollDown, MouseScrollUp

from qig_core.rundir.schema import Event
from qig_tui.events_filter import Listing, NotUnderstood, parse
from qig_tui.journal import Journal
from qig_tui.screens.event import EventScreen, laid_out
from qig_tui.sources.local import LocalSource
from qig_tui.widgets.events import EventList
from qig_tui.widgets.filter_bar import FilterBar
from tests.tui.runs import add_checkpoint, open_run, set_condition
from tests.tui.screens import opened, screen_text, text_of, until, until_shown


def event(seq, kind="note", severity="info", step=None, **data):
    return Event(seq, 1000.0 + seq, kind, seq if step is None else step, "s1", severity, None, data)


def checkpoint(seq, reason="interval", **data):
    return event(seq, "checkpoint", name=f"step-{seq:08d}", reason=reason, **data)


def kept(text, *events):
    found = parse(text)
    return [e.seq for e in events if found.matches(e)]


NAN = event(1, "condition", "critical", 1500, id="nonfinite", state="critical", comparison="finite", cause=["loss"])
LOW = event(2, "condition", "warning", 900, id="phi_floor", state="warning", metric="phi", comparison=">=", limit=0.5)
SAVED = checkpoint(2000)
SAID = event(4, "note", text="Φ fell Below the floor: look", step=2500)
ALL = (NAN, LOW, SAVED, SAID)


@pytest.mark.parametrize(
    ("text", "seqs"),
    [
        ("", [1, 2, 2000, 4]),
        ("  ", [1, 2, 2000, 4]),
        ("below", [4]),
        ("φ BELOW", [4]),
        ("below nothing", []),
        ('"below the"', [4]),
        ('"the below"', []),
        ('"below th', [4]),
        ("floor", [2, 4]),
        ("floor -note", [2]),
        ("-floor -kind:checkpoint", [1]),
        ("kind:checkpoint", [2000]),
        ("kind:cond", [1, 2]),
        ("KIND:Condition", [1, 2]),
        ("severity:warning", [1, 2]),
        ("severity:w", [1, 2]),
        ("severity:critical", [1]),
        ("-severity:warning", [2000, 4]),
        ("step>1500", [2000, 4]),
        ("step>=1500 step<2_000", [1]),
        ("step<=900", [2]),
        ("step=900", [2]),
        ("step:900", [2]),
        ("-step>1000", [2]),
        ("kind: severity: step> - -- ''", []),
        ("kind: severity: step> -", [1, 2, 2000, 4]),
        ("floor:", [4]),
        ('"kind:checkpoint"', []),
    ],
)
def test_a_filter_keeps_what_it_names(text, seqs):
    assert kept(text, *ALL) == seqs


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("severity:bad", "bad is none of info, warning, critical"),
        ("step>many", "many is no step, as in step>1000"),
        ("step>" + "9" * 30, "99999999999… is no step, as in step>1000"),
        ("step>1²", "1² is no step, as in step>1000"),
        ("kind>3", "only steps are compared, as in step>1000"),
        ("knd:note", "no field knd: is known; kind: is"),
        ("sev:w", "no field sev: is known; severity: is"),
        ("steps>5", "no field steps> is known; step> is"),
        ("severity:\x1b[31m", "\\x1b[31m is none of info, warning, critical"),
    ],
)
def test_a_filter_that_says_nothing_is_refused_in_a_sentence(text, words):
    with pytest.raises(NotUnderstood) as refused:
        parse(text)
    assert str(refused.value) == words


def test_an_event_without_a_step_is_on_no_side_of_one():
    bare = Event(9, 0.0, "note")
    assert not kept("step>0", bare)
    assert not kept("step<=5", bare)
    assert kept("-step>0", bare) == [9]


@given(st.text(max_size=40))
def test_any_text_is_a_filter_or_a_sentence(text):
    sentence = ""
    try:
        assert {*kept(text, *ALL)} <= {e.seq for e in ALL}
    except NotUnderstood as refused:
        sentence = str(refused)
    assert sentence.isprintable()


def rows(listing):
    """Newest first: kind, the newest's seq, how many."""
    return [(row.event.kind, row.event.seq, row.count) for row in reversed(listing.rows)]


def listed(events, **chosen):
    listing = Listing(**chosen)
    listing.follow(events)
    return listing


def test_checkpoints_between_prunes_are_two_rows():
    events = [event(0, "start")]
    for i in range(1, 25, 2):
        events += [checkpoint(i), event(i + 1, "pruned", how="after a save", names=["a"])]
    listing = listed(events)
    assert rows(listing) == [("pruned", 24, 12), ("checkpoint", 23, 12), ("start", 0, 1)]
    assert (listing.rows[1].first_step, listing.rows[1].last_step) == (1, 23)


def test_what_is_no_routine_ends_a_streak():
    between = event(3, "condition", "warning", id="drift", state="warning")
    listing = listed([checkpoint(1), checkpoint(2), between, checkpoint(4), checkpoint(5)])
    assert [(kind, count) for kind, _, count in rows(listing)] == [
        ("checkpoint", 2),
        ("condition", 1),
        ("checkpoint", 2),
    ]


@pytest.mark.parametrize(
    "make",
    [
        lambda seq: checkpoint(seq, "command"),
        lambda seq: checkpoint(seq, "emergency"),
        lambda seq: checkpoint(seq, "end"),
        lambda seq: checkpoint(seq, error="disk full"),
        lambda seq: event(seq, "checkpoint", "warning", reason="interval"),
        *(
            lambda seq, kind=kind: event(seq, kind)
            for kind in ("command", "start", "end", "restored", "condition", "alert", "note", "soft_reset", "other")
        ),
    ],
)
def test_what_is_news_is_never_folded(make):
    assert len(listed([make(seq) for seq in range(5)]).rows) == 5


def test_reasons_that_differ_stand_apart():
    listing = listed([checkpoint(1), checkpoint(2, "best"), checkpoint(3), checkpoint(4, "best")])
    assert rows(listing) == [("checkpoint", 4, 2), ("checkpoint", 3, 2)]


@pytest.mark.parametrize(
    ("text", "count"),
    [("kind:checkpoint", 9), ("interval", 9), ("step>1", 1), ("-note", 1), ("severity:info", 1), ("-kind:note", 1)],
)
def test_a_filter_that_asks_for_them_shows_them_one_by_one(text, count):
    assert len(listed([checkpoint(seq) for seq in range(2, 11)], wanted=parse(text)).rows) == count


def test_a_severity_that_nobody_knows_is_not_hidden_with_the_harmless():
    events = [event(0), event(1, severity="fatal"), event(2, severity="critical")]
    assert [row.event.seq for row in listed(events, level="warnings").rows] == [1, 2]
    assert [row.event.seq for row in listed(events, level="critical").rows] == [2]


STREAMS = st.lists(
    st.sampled_from(["checkpoint", "pruned", "note", "warning"]).map(
        lambda kind: ("condition", kind) if kind == "warning" else (kind, "info")
    ),
    max_size=60,
)


@given(STREAMS, st.integers(1, 20), st.integers(1, 9), st.sampled_from(["", "-note", "kind:checkpoint", "step>7"]))
def test_a_list_that_grew_shows_what_a_new_one_shows(kinds, bound, at_once, text):
    kept_events = deque(maxlen=bound)
    listing = Listing(wanted=parse(text))
    for at in range(0, len(kinds), at_once):
        kept_events += [event(seq, kind, severity) for seq, (kind, severity) in enumerate(kinds[at : at + at_once], at)]
        listing.follow(kept_events)
        assert listing.knows(kept_events)
        new = listed(kept_events, wanted=listing.wanted)
        assert (listing.total, listing.shown) == (new.total, new.shown)
        numbers = [row.number for row in listing.rows]
        assert numbers == sorted(numbers)
        # A streak that began before the oldest that is left may stand as one row where a new list has it begin later.
        assert [r[:2] for r in rows(listing)] == [r[:2] for r in rows(new)] or len(kept_events) == bound
    listing.choose(kept_events)
    assert rows(listing) == rows(listed(kept_events, wanted=listing.wanted))


def test_a_choice_does_not_bring_in_what_came_since():
    events = deque([event(0), event(1)])
    listing = listed(events)
    events.append(event(2))
    listing.choose(events, level="all")
    assert rows(listing) == [("note", 1, 1), ("note", 0, 1)]
    assert listing.follow(events) == [3]


class Shown(App[None]):
    """The list alone, and the dialog that it asks for."""

    AUTO_FOCUS = ""

    def __init__(self):
        super().__init__()
        self.list = EventList()
        self.wanted = 0

    def compose(self):
        yield self.list

    @on(EventList.Chosen)
    def show_event(self, chosen):
        self.push_screen(EventScreen(chosen.event, chosen.count))

    @on(EventList.FilterWanted)
    def count(self):
        self.wanted += 1


def lines_of(app):
    return [line.rstrip() for line in text_of(app.list).splitlines()]


def seqs_of(app):
    """The notes in sight, by the number that each says."""
    return [int(line.rsplit(" ", 1)[1]) for line in lines_of(app)[1:] if line]


def notes(*seqs):
    return [event(seq, text=f"said {seq}") for seq in seqs]


async def test_what_a_run_records_is_listed_newest_first_and_its_routine_in_one_row(tmp_path):
    with open_run(tmp_path) as writer:
        for step in range(1000, 2200, 100):
            add_checkpoint(writer, step)
        set_condition(writer, "critical", value=0.7, cause=["kappa", "drift_rolling"])
        journal = Journal()
        journal.add(LocalSource(writer.run).look().events)
    app = Shown()
    async with app.run_test(size=(120, 8)) as pilot:
        app.list.show(journal.events)
        await until(pilot, lambda: "EVENTS" in text_of(app.list))
        title, alarm, folded, start, *_ = lines_of(app)
        assert title.startswith("EVENTS ─")
        assert title.endswith(" 14")
        assert "✖ condition " in alarm
        assert "kappa moved first, then drift_rolling" in alarm
        assert "· checkpoint      ×12  steps 1 000 … 2 100, interval" in folded
        assert "· start " in start
        assert app.list.filter("kind:checkpoint") is None
        assert "'kind:checkpoint'" in lines_of(app)[0]
        assert lines_of(app)[0].endswith("12 of 14")
        assert "2 100  step-00002100 (interval)" in lines_of(app)[1]


async def test_severity_goes_round_and_a_filter_that_is_wrong_changes_nothing():
    app = Shown()
    async with app.run_test(size=(60, 10)):
        app.list.show([*notes(1, 2), event(3, "alert", "warning", text="w"), event(4, "alert", "critical", text="c")])
        assert lines_of(app)[0].endswith("─ 4")
        app.list.action_severity()
        assert lines_of(app)[0].startswith("EVENTS  warnings ─")
        assert lines_of(app)[0].endswith("2 of 4")
        app.list.action_severity()
        assert lines_of(app)[0].startswith("EVENTS  critical ─")
        assert lines_of(app)[0].endswith("1 of 4")
        assert "none of info, warning" in app.list.filter("severity:x")
        assert lines_of(app)[0].startswith("EVENTS  critical ─")
        assert app.list.filter("nothing") is None
        assert "none of 4 is shown" in lines_of(app)[1]
        app.list.action_severity()
        assert app.list.filter("") is None
        assert lines_of(app)[0].endswith("─ 4")


async def test_at_the_top_it_follows_and_elsewhere_it_stays_at_its_place():
    app = Shown()
    async with app.run_test(size=(80, 6)) as pilot:
        found = deque(notes(*range(30)), maxlen=40)
        app.list.show(found)
        found.append(*notes(30))
        app.list.show(found)
        assert seqs_of(app) == [30, 29, 28, 27, 26]
        for _ in range(3):
            app.list.post_message(MouseScrollDown(app.list, 1, 1, 0, 1, 0, False, False, False))
        await until(pilot, lambda: seqs_of(app)[0] == 24)
        assert "6 newer above" in lines_of(app)[0]
        found.extend([checkpoint(31), *notes(32)])
        app.list.show(found)
        assert seqs_of(app) == [24, 23, 22, 21, 20]
        assert "8 newer above" in lines_of(app)[0]
        found.append(checkpoint(33))
        app.list.show(found)
        found.append(checkpoint(34))  # joins the row before it: nothing moves
        app.list.show(found)
        assert seqs_of(app) == [24, 23, 22, 21, 20]
        assert "9 newer above" in lines_of(app)[0]
        for _ in range(5):
            app.list.post_message(MouseScrollUp(app.list, 1, 1, 0, -1, 0, False, False, False))
        await until(pilot, lambda: "newer" not in lines_of(app)[0])
        found.append(*notes(40))
        app.list.show(found)
        assert lines_of(app)[1].endswith("said 40")


async def test_what_the_journal_forgets_is_left_and_the_place_is_the_nearest():
    app = Shown()
    async with app.run_test(size=(80, 6)):
        found = deque(notes(*range(10)), maxlen=10)
        app.list.show(found)
        app.list.action_oldest()
        assert seqs_of(app) == [4, 3, 2, 1, 0]
        found.extend(notes(10, 11))
        app.list.show(found)
        assert seqs_of(app) == [6, 5, 4, 3, 2]
        assert lines_of(app)[0].endswith(" 10")
        app.list.show(deque())
        assert "nothing yet" in lines_of(app)[1]
        app.list.show(notes(1))
        assert seqs_of(app) == [1]


async def test_the_keys_move_through_it_and_enter_opens_what_they_are_at():
    app = Shown()
    async with app.run_test(size=(80, 12)) as pilot:
        found = notes(*range(30))
        app.list.show(found)
        await pilot.press("tab", "down", "down")
        await until(pilot, lambda: "▸" in lines_of(app)[3])
        app.list.show([*found, *notes(30)])
        assert "▸" in lines_of(app)[3]
        assert seqs_of(app)[2] == 27
        await pilot.press("pagedown")
        assert seqs_of(app)[-1] == 16
        await pilot.press("end")
        assert seqs_of(app)[-1] == 0
        await pilot.press("pageup", "enter")
        await until_shown(pilot, EventScreen)
        assert "said 11" in screen_text(app)
        await pilot.press("enter")
        await until(pilot, lambda: not isinstance(app.screen, EventScreen))
        await pilot.press("home")
        assert seqs_of(app)[0] == 30
        await pilot.press("escape")
        await until(pilot, lambda: "▸" not in text_of(app.list))


async def test_a_click_opens_the_row_under_it_with_how_many_it_stands_for():
    app = Shown()
    async with app.run_test(size=(100, 30)) as pilot:
        app.list.show([checkpoint(1), checkpoint(2, fingerprint="f" * 64), *notes(3)])
        assert await pilot.click(EventList, offset=(9, 0))
        assert await pilot.click(EventList, offset=(9, 9))
        assert not isinstance(app.screen, EventScreen)
        assert await pilot.click(EventList, offset=(9, 2))
        await until_shown(pilot, EventScreen)
        shown = screen_text(app)
        for words in ("step-00000002 (interval)", "the newest of 2", "f" * 40, "2 of events.jsonl", "s1"):
            assert words in shown


@pytest.mark.parametrize("size", [(80, 24), (40, 12), (20, 5), (3, 2)])
async def test_a_hostile_event_is_shown_whole_and_harmless(size):
    bomb = {"\x1b[31m": ["\x07" * 9], "deep": {}, "[bold]": "[red]\nsecond\x00", "n": [1.5, float("nan"), None, True]}
    inner = bomb["deep"]
    for _ in range(50):
        inner["deep"] = {}
        inner = inner["deep"]
    bomb["many"] = [{"i": i} for i in range(1000)]
    bomb["long"] = "x" * 100_000
    hostile = Event(-1, 1e300, "k\x1b[2J" * 50, -(10**18), "\u202e" * 99, "odd\n", "\x00", bomb)
    app = Shown()
    async with app.run_test(size=size) as pilot:
        app.list.show([hostile])
        app.list.action_choose()
        await until_shown(pilot, EventScreen)
        assert app.screen.query_one("#dialog").scroll_offset.y == 0
        await pilot.press("pagedown", "down", "up", "home")
        shown = screen_text(app) + text_of(app.list)
    assert not {"\x1b", "\x07", "\x00", "\u202e"} & set(shown)


def test_data_is_laid_out_with_what_is_nested_below_its_key():
    data = {"a": 1.5, "b": [1, 2], "c": {"d": None, "e": [{"f": "x\ny"}]}, "g": [], "h": {}, "i": ""}
    assert list(laid_out(data)) == [
        ("a", "1.5"),
        ("b", "1, 2"),
        ("c", ""),
        ("  d", "null"),
        ("  e", ""),
        ("    0", ""),
        ("      f", "x"),
        ("", "y"),
        ("g", "[]"),
        ("h", "{}"),
        ("i", '""'),
    ]


async def test_a_key_asks_for_the_filter_line_and_nothing_is_drawn_where_nothing_came():
    app = Shown()
    async with app.run_test(size=(80, 6)) as pilot:
        found = deque(notes(1, 2))
        app.list.show(found)
        before = list(map(id, app.list._strips))
        app.list.show(found)
        assert list(map(id, app.list._strips)) == before
        app.list.action_ask_filter()
        await until(pilot, lambda: app.wanted == 1)


async def test_the_keys_choose_which_events_are_shown_and_show_one_whole(writer):
    async with opened(writer.run) as (app, pilot):
        shown = app.screen.query_one(EventList)
        await pilot.press("v")
        await until(pilot, lambda: "warnings" in text_of(shown))
        await pilot.press("v", "v", "f", *"kind:ch")
        await until(pilot, lambda: "'kind:ch'" in text_of(shown))
        assert "2 of 4" in text_of(shown)
        await pilot.press("enter", "enter")
        await until_shown(pilot, EventScreen)
        await pilot.press("escape", "f", "escape")
        await until(pilot, lambda: "kind:ch" not in text_of(shown))
        assert not app.screen.query_one("#events-filter", FilterBar).has_class("-open")


async def test_a_filter_that_is_not_understood_is_said_beside_it(writer):
    async with opened(writer.run) as (app, pilot):
        await pilot.press("f", *"step>x")
        bar = app.screen.query_one("#events-filter", FilterBar)
        await until(pilot, lambda: "x is no step, as in step>1000" in str(bar.query_one("#filter-said").render()))
        assert " of " not in text_of(app.screen.query_one(EventList))
