"""What the parts of an examination take and give. Plain data; looks at nothing."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from qig_core.rundir.layout import RunDir
from qig_core.rundir.schema import Manifest

Row = dict[str, Any]
State = Literal["ok", "warning", "bad"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    check: str
    state: State
    what: str
    """A sentence."""
    cure: str = ""
    """A command that cures it, quoted for a shell; empty where there is none."""

    def row(self) -> Row:
        """Plain data for JSON."""
        return {"check": self.check, "state": self.state, "what": self.what, "cure": self.cure}


Steps = Iterator[Finding | Row]
"""Findings, and between them how far a long look has come: check, done and total (bytes)."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """What every part may count on."""

    run: RunDir
    manifest: Manifest | None
    """None where run.json cannot be read."""
    holder: int | None
    """Who holds the lock, as `lock_holder` says it."""

    @property
    def live(self) -> bool:
        return self.holder is not None

    @property
    def session(self) -> str:
        """The last one's id; empty where there is none."""
        return self.manifest.sessions[-1].id if self.manifest and self.manifest.sessions else ""
