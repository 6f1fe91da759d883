"""What is known of each checkpoint of a run, as plain data: its state, its names, why it stays. No Textual, no disk."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from qig_core.checkpoints.ranking import best, last_good, latest
from qig_core.checkpoints.retention import EMERGENCY, Keep, Shelved, plan
from qig_core.errors import ConfigError
from qig_core.rundir.schema import PINNED, CheckpointManifest, Event, Manifest
from qig_tui.picture import RunPicture
from qig_tui.records import NONFINITE
from qig_tui.sources.checkpoints import CheckpointEntry, step_of
from qig_tui.text import grouped, safe, size
from qig_tui.travel import Moment

COMPLETE = "COMPLETE"
STATUSES = (COMPLETE, "NO-ACCESS", "HASH-MISMATCH", "TORN", "UNREADABLE", "NEWER")
"""By rising gravity; NEWER: of a format that this program does not know."""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What reading every byte of a checkpoint has shown."""

    status: str
    t: float
    """When it was read, on the clock of this dashboard."""
    problems: tuple[str, ...] = ()
    nonfinite: tuple[str, ...] | None = None
    """FILE:TENSOR of each that holds a value that is not finite; None where nobody looked."""
    tensors: int | None = None
    beside: str | None = None
    """The checkpoint whose tensors' names, types and shapes it was compared with."""
    differing: tuple[str, ...] = ()
    """In what, in sentences."""

    @property
    def is_whole(self) -> bool:
        return self.status == COMPLETE

    @property
    def problem(self) -> str:
        """In a few words; empty where nothing is wrong."""
        return "" if self.is_whole else ": ".join([self.status, *self.problems[:1]])


@dataclass(frozen=True, kw_only=True)
class Rule:
    """By which rule the checkpoints of a run are ranked and pruned."""

    keep: Keep
    recorded: bool
    """Whether the run records one; else nothing goes by itself."""
    problem: str = ""
    """Why the one that it records cannot be used."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One checkpoint."""

    entry: CheckpointEntry
    checked: Checked | None
    score: float | None
    """By the run's own rule; not finite where it was not."""
    phi: float | None
    tags: tuple[str, ...]
    """Ranks first, then what was given by people."""
    left: str = ""
    """Of a branch that the run went back from: before what."""
    why: tuple[str, ...] = ()
    """Why the rule keeps it; none: it goes at the next prune."""

    @property
    def name(self) -> str:
        return self.entry.name

    @property
    def manifest(self) -> CheckpointManifest | None:
        return self.entry.manifest

    @property
    def status(self) -> str:
        """A word of STATUSES: as its bytes are, where they were read, else as it is at first sight."""
        if self.checked is not None and not (self.checked.is_whole and self.entry.problem):
            return self.checked.status
        word = self.entry.problem.split(maxsplit=1)[0].rstrip(":") if self.entry.problem else COMPLETE
        return word if word in STATUSES else "UNREADABLE"

    @property
    def problem(self) -> str:
        """What is wrong with it; a sentence without its full stop, empty where nothing is known to be."""
        if self.checked is not None and self.checked.problem:
            return self.checked.problem
        return self.entry.problem

    @property
    def is_verified(self) -> bool:
        """Whether every byte is known to be as it was published."""
        return self.status == COMPLETE and self.checked is not None

    @property
    def glyph(self) -> str:
        return "✖" if self.status != COMPLETE else "✓" if self.is_verified else "○"

    @property
    def is_pinned(self) -> bool:
        return PINNED in self.entry.tags


def rule_of(manifest: Manifest) -> Rule:
    """As the run records it, else as the core prunes without being told."""
    known = {key: value for key, value in manifest.keep.items() if key in Keep.__dataclass_fields__}
    try:
        return Rule(keep=Keep(**known), recorded=bool(known))
    except ConfigError as error:
        return Rule(keep=Keep(), recorded=False, problem=str(error))


def rows_of(picture: RunPicture, run_id: str, checked: Mapping[str, Checked]) -> list[Row]:
    """Every checkpoint of a picture, newest-published first.

    Args:
        run_id: what the run's directory is called.
        checked: by name, of those whose bytes were read.
    """
    entries = picture.checkpoints
    rule = rule_of(picture.manifest)
    left = picture.went_back
    whole = [e.manifest for e in entries if e.manifest is not None and _is_whole(e, checked)]
    ranks = {
        "best": best(whole, rule.keep.score, rule.keep.lower_is_better),
        "latest": latest(whole),
        "last-good": last_good(manifest for manifest in whole if manifest.name not in left),
    }
    why = _kept(picture, run_id, rule.keep, checked)
    rows = []
    for entry in entries:
        tags = [word for word, manifest in ranks.items() if manifest is not None and manifest.name == entry.name]
        emergency = entry.manifest is not None and entry.manifest.reason == EMERGENCY
        ours = [PINNED] if PINNED in entry.tags else []
        own = [tag for tag in entry.tags if tag not in (PINNED, EMERGENCY)]
        rows.append(
            Row(
                entry=entry,
                checked=checked.get(entry.name),
                score=value_of(entry.manifest, rule.keep.score),
                phi=value_of(entry.manifest, "phi"),
                tags=(*tags, *ours, *([EMERGENCY] if emergency else []), *own),
                left=before_what(left[entry.name]) if entry.name in left else "",
                why=why[entry.name],
            )
        )
    return rows


def value_of(manifest: CheckpointManifest | None, metric: str) -> float | None:
    """What was known of a metric when a checkpoint was made; None where nothing was."""
    if manifest is None or metric not in manifest.metrics:
        return None
    value = manifest.metrics[metric]
    return NONFINITE.get(manifest.nonfinite.get(metric, "nan")) if value is None else value


def before_what(event: Event) -> str:
    """Of a checkpoint on a branch that the run went back from, by the event that tells of it."""
    how = "the resume at" if event.data.get("how", "resume") == "resume" else "going back to"
    return f"before {how} {grouped(event.step or 0)}"


def _is_whole(entry: CheckpointEntry, checked: Mapping[str, Checked]) -> bool:
    found = checked.get(entry.name)
    return not entry.problem and (found is None or found.is_whole)


def _kept(picture: RunPicture, run_id: str, keep: Keep, checked: Mapping[str, Checked]) -> dict[str, tuple[str, ...]]:
    """By name why the rule keeps it, by the core's own rule over what a dashboard sees.

    The core reads more before it deletes anything, a live trainer keeps besides what a soft reset would go back to.
    """
    entries = picture.checkpoints
    verified = [name for name, found in checked.items() if found.is_whole]
    newest = next((entry.name for entry in entries if entry.name in verified and not entry.problem), None)
    sessions = {one.resumed_from for one in picture.manifest.sessions if one.resumed_from}
    restored = {name for e in picture.journal.restored if isinstance(name := e.data.get("checkpoint"), str)}
    found = plan(
        [
            Shelved(
                name=entry.name,
                manifest=entry.manifest,
                tags=entry.tags if entry.tags_known else None,
                whole=_is_whole(entry, checked),
                size=entry.size,
            )
            for entry in entries
        ],
        keep,
        runs={run_id, picture.manifest.id},
        resumed_from=sessions | restored,
        verified=newest,
    )
    return {one.name: one.reasons for one in found.decisions}


def gone_since(events: Iterable[Event], moment: Moment) -> int:
    """How many that were there at a moment were deleted since, as far as their names tell when they were made."""
    gone = 0
    for event in events:
        names = event.data.get("names")
        if event.kind == "pruned" and event.t > moment.t and isinstance(names, list):
            steps = [step_of(name) for name in names if isinstance(name, str)]
            gone += sum(step is None or step <= moment.step for step in steps)
    return gone


def rule_words(picture: RunPicture) -> str:
    """The rule in a line: how many stay, by what the best are known, and whether any goes by itself."""
    rule = rule_of(picture.manifest)
    keep = rule.keep
    way = "" if keep.lower_is_better else ", higher is better"
    what = f"newest {grouped(keep.newest)}, best {grouped(keep.best)} by {picture.label(keep.score)}{way}"
    if rule.problem:
        return f"the recorded rule cannot be used ({safe(rule.problem, 80)}); shown for {what}"
    return f"kept: {what}" if rule.recorded else f"no rule recorded, none goes by itself; x would keep {what}"


def dry_run(entry: CheckpointEntry, checked: Checked) -> list[tuple[str, str]]:
    """What was tried with a checkpoint before it is gone back to: of each thing a glyph and words."""
    problem = safe(checked.problem, 200)
    if checked.status not in (COMPLETE, "HASH-MISMATCH"):
        return [("✖", f"not opened: {problem}")]
    files = 0 if entry.manifest is None else len(entry.manifest.files)
    done = [("✓", f"opened {grouped(files)} {'file' if files == 1 else 'files'}")]
    if not checked.is_whole:
        return [*done, ("✖", f"digests: {problem}")]
    done.append(("✓", f"digests of {size(entry.size)}"))
    if checked.nonfinite is not None:
        odd = checked.nonfinite
        more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
        done.append(("▲", f"not finite: {safe(odd[0], 60)}{more}") if odd else ("✓", "every number finite"))
    if checked.differing:
        done.append(("▲", f"shapes: {safe(checked.differing[0], 160)} ({safe(checked.beside, 40)})"))
    elif checked.tensors is not None and checked.beside is not None:
        done.append(("✓", f"shapes of {grouped(checked.tensors)} tensors as in {safe(checked.beside, 40)}"))
    return done


def total_size(rows: Sequence[Row]) -> int:
    """Bytes of payload."""
    return sum(row.entry.size for row in rows)
