"""What a prune would delete and why the rest stays, as `qig-core checkpoints prune --dry-run` says. No Textual."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from qig_tui.text import ABSENT, grouped, pad, pad_left, safe, size

_MOST = 300
_MOST_BYTES = 1 << 62


@dataclass(frozen=True, kw_only=True)
class Planned:
    """What becomes of one checkpoint."""

    name: str
    step: int | None
    size: int
    reasons: tuple[str, ...]
    """Why it stays; none: it goes."""


@dataclass(frozen=True, kw_only=True)
class PrunePlan:
    """What becomes of each, newest-published first, and by how many of each kind."""

    rows: tuple[Planned, ...]
    newest: int
    best: int
    score: str

    @property
    def going(self) -> list[Planned]:
        return [row for row in self.rows if not row.reasons]

    @property
    def staying(self) -> list[Planned]:
        return [row for row in self.rows if row.reasons]

    @property
    def freed(self) -> int:
        return sum(row.size for row in self.going)


def plan_of(result: object, damaged: Mapping[str, str]) -> PrunePlan | None:
    """The answer of the child; None where it is none.

    Args:
        damaged: by name the status of those that were found damaged here. A plan reads the newest ones only, and what
            is damaged is never given up.
    """
    if not isinstance(result, dict) or not isinstance(result.get("plan"), list):
        return None
    rule = result.get("rule")
    known: Mapping[str, Any] = rule if isinstance(rule, dict) else {}
    rows = []
    for row in result["plan"]:
        if not isinstance(row, dict) or not isinstance(row.get("name"), str):
            continue
        reasons = row.get("reasons")
        why = tuple(safe(one, 80) for one in reasons) if isinstance(reasons, list) else ()
        if row["name"] in damaged and not why:
            why = (f"found {damaged[row['name']]}; never pruned",)
        step, bytes_ = row.get("step"), row.get("size")
        rows.append(
            Planned(
                name=row["name"],
                step=step if isinstance(step, int) else None,
                size=min(max(bytes_, 0), _MOST_BYTES) if isinstance(bytes_, int) else 0,
                # Only what says that it goes goes.
                reasons=why or (() if row.get("kept") is False else ("no reason was given",)),
            )
        )
    newest, best = known.get("newest"), known.get("best")
    return PrunePlan(
        rows=tuple(rows),
        newest=newest if isinstance(newest, int) else 1,
        best=best if isinstance(best, int) else 0,
        score=safe(known.get("score", "?"), 40),
    )


def many(count: int) -> str:
    return "1 checkpoint" if count == 1 else f"{grouped(count)} checkpoints"


def plan_text(plan: PrunePlan, width: int) -> Text:
    """The plan to read: what goes first, then what stays and why."""
    text = Text("Of these stay: ")
    text.append(f"the newest {grouped(plan.newest)}, the best {grouped(plan.best)} by {plan.score}", style="bold")
    text.append(", and whatever is pinned, gone on from or in doubt.\n", style="dim")
    going, staying = plan.going, plan.staying
    if not going:
        text.append("\n○ Nothing to delete: the rule keeps them all.\n", style="bold")
    else:
        text.append(f"\n✖ {many(len(going))} would be deleted, {size(plan.freed)} freed\n", style="bold")
        _list(text, going, width)
    if staying:
        text.append(f"\n✓ {many(len(staying))} would stay, {size(sum(row.size for row in staying))}\n", style="bold")
        _list(text, staying, width)
    return text


def _list(text: Text, rows: list[Planned], width: int) -> None:
    name = max(min(max((len(row.name) for row in rows), default=0), width - 45), 12)
    for row in rows[:_MOST]:
        step = ABSENT if row.step is None else grouped(row.step)
        text.append(f"  {pad_left(step, 8)}  ")
        text.append(f"{pad(safe(row.name, name), name)}  {pad_left(size(row.size), 9)}  ", style="dim")
        why = ", ".join(row.reasons) if row.reasons else "beyond newest and best"
        text.append(f"{pad(why, max(width - name - 25, 0))}".rstrip() + "\n")
    if len(rows) > _MOST:
        text.append(f"  and {grouped(len(rows) - _MOST)} more\n", style="dim")
