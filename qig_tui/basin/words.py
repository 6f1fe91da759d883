"""What is said of a basin that is looked at, and of one that is not there. Pure."""

from qig_tui.basin.basins import Derived, Kept
from qig_tui.picture import BasinView, RunPicture
from qig_tui.series import Floats
from qig_tui.text import grouped


def three(picture: RunPicture, view: BasinView, derived: Derived | None) -> list[tuple[int, Floats]]:
    """The basin that is shown and the two before it, newest first, as far as they are known."""
    known = list(picture.history.basins)[:-4:-1] if picture.cursor is None else list(picture.cursor.basins)
    if not known or known[0][0] != view.step:
        return []
    if len(known) == 2 and derived is not None and derived.before is not None and derived.step == view.step:
        known.append(derived.before)
    return known


def reference(picture: RunPicture, view: BasinView) -> str:
    """Which basin distances are measured from, and why that one."""
    origin = picture.pinned or picture.history.reference
    if origin is None or len(origin[1]) != len(view.values):
        return f"step {grouped(view.reference_step)} (itself: the other has another size)"
    of_a_fork = picture.manifest.parent is not None or view.reference_step > 0
    first = "the first recorded here" if of_a_fork else "birth"
    return f"step {grouped(view.reference_step)} ({first if picture.pinned is None else 'pinned'})"


def why_none(picture: RunPicture, kept: Kept | None, problem: str) -> tuple[str, str]:
    """Where no basin is shown: that, and what helps."""
    if picture.moment is not None:
        return f"No basin had been recorded by step {grouped(picture.moment.step)}.", "] leads to later samples."
    if kept is None or kept.share is not None:
        return "No basin among the newest samples.", problem or "Those before are being read."
    if len(kept.step):
        last = grouped(int(kept.step[-1]))
        return "No basin among the newest samples.", f"The last ones are of about step {last}: [ leads back."
    return "This run has recorded no basin.", "A basin comes with the samples of a trainer that measures one."
