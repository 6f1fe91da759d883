from dataclasses import replace

import numpy as np
import pytest

from qig_tui.view import SMOOTHINGS, View

ENDS = (100, 1099)


def test_a_new_view_shows_everything_and_follows_the_newest():
    assert View().shown(ENDS) == ENDS
    assert View().shown((100, 2000)) == (100, 2000)


def test_zooming_in_without_a_cursor_follows_the_newest():
    view = View().zoomed(0.5, ENDS)
    assert view.last is None
    assert view.shown(ENDS) == (599, 1099)


@pytest.mark.parametrize("around", [100, 350, 600, 1099])
def test_the_step_under_the_pointer_stays_where_it_is(around):
    view = View()
    for _ in range(4):
        first, last = view.shown(ENDS)
        share = (around - first) / (last - first)
        view = view.zoomed(0.7, ENDS, around=around)
        first, last = view.shown(ENDS)
        assert (around - first) / (last - first) == pytest.approx(share, abs=1 / (last - first))


def test_zooming_goes_around_a_cursor_in_sight_and_not_around_one_out_of_it():
    first, last = View(cursor=300).zoomed(0.5, ENDS).shown(ENDS)
    assert first < 300 < last < ENDS[1]
    assert View(first=800, cursor=300).zoomed(0.5, ENDS).last is None


def test_zooming_out_ends_with_everything():
    view = View(first=500, last=520)
    for _ in range(20):
        view = view.zoomed(2.0, ENDS)
    assert (view.first, view.last) == (None, None)


def test_zooming_in_ends_with_a_few_steps():
    view = View()
    for _ in range(40):
        view = view.zoomed(0.5, ENDS)
    first, last = view.shown(ENDS)
    assert last - first == 8


def test_moving_goes_a_quarter_of_the_span_and_stops_at_the_ends():
    view = View(first=500, last=700)
    assert view.moved(-1, ENDS).shown(ENDS) == (450, 650)
    assert view.moved(1, ENDS).shown(ENDS) == (550, 750)
    for _ in range(20):
        view = view.moved(-1, ENDS)
    assert view.shown(ENDS) == (100, 300)
    for _ in range(20):
        view = view.moved(1, ENDS)
    assert (view.first, view.last) == (899, None)


def test_moving_everything_moves_nothing():
    assert View().moved(-1, ENDS) == View()
    assert View().moved(1, ENDS) == View()


def test_with_a_cursor_it_is_the_cursor_that_moves():
    view = View(first=500, last=900, cursor=600)
    assert view.moved(1, ENDS) == View(first=500, last=900, cursor=604)
    assert View(cursor=100).moved(-1, ENDS).cursor == 100
    assert View(cursor=1099).moved(1, ENDS).cursor == 1099


def test_what_is_shown_goes_with_a_cursor_that_would_leave_it():
    view = View(first=500, last=700, cursor=699)
    for _ in range(3):
        view = view.moved(1, ENDS)
    assert (view.cursor, view.shown(ENDS)) == (705, (505, 705))
    view = View(first=500, last=700, cursor=500).moved(-1, ENDS)
    assert (view.cursor, view.shown(ENDS)) == (498, (498, 698))


def test_zooming_around_another_step_takes_the_cursor_along():
    view = View(cursor=150)
    for _ in range(5):
        view = view.zoomed(0.5, ENDS, around=900)
    first, last = view.shown(ENDS)
    assert (first, view.cursor) == (first, first)
    assert first < 900 < last


def test_a_cursor_is_set_in_sight_only():
    assert View(first=500, last=700).pointed(900, ENDS).cursor == 700
    assert View().pointed(2000, ENDS).cursor == 1099
    assert View().pointed(600, ENDS).cursor == 600


def test_smoothing_goes_round():
    view = View()
    seen = []
    for _ in SMOOTHINGS:
        seen.append(view.smoothing)
        view = view.smoother()
    assert tuple(seen) == SMOOTHINGS
    assert view == View()


@pytest.mark.parametrize("ends", [(0, 0), (0, 1), (5, 12), (0, 10**12)])
def test_no_path_leaves_what_was_read(ends):
    rng = np.random.default_rng(3)
    moves = (
        lambda v: v.zoomed(0.5, ends),
        lambda v: v.zoomed(2.0, ends),
        lambda v: v.zoomed(0.8, ends, around=int(rng.integers(ends[0], ends[1] + 1))),
        lambda v: v.moved(-1, ends),
        lambda v: v.moved(1, ends),
        lambda v: v.pointed(int(rng.integers(ends[0], ends[1] + 1)), ends),
        lambda v: replace(v, cursor=None),
    )
    view = View()
    for which in rng.integers(len(moves), size=500):
        view = moves[which](view)
        first, last = view.shown(ends)
        assert ends[0] <= first <= last <= ends[1]
        assert view.cursor is None or first <= view.cursor <= last
