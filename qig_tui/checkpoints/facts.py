"""Everything that is known of one checkpoint, in sections of keys and values. No Textual, no disk."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from qig_core.errors import SimplexError
from qig_core.geometry.simplex import fisher_rao_distance
from qig_core.rundir.schema import CheckpointManifest
from qig_core.rundir.values import decode_basin
from qig_tui.checkpoints.columns import written
from qig_tui.checkpoints.rows import COMPLETE, Row, rule_of, value_of
from qig_tui.journal import GLYPHS
from qig_tui.picture import RunPicture
from qig_tui.series import Floats
from qig_tui.text import ABSENT, age, clock, duration, grouped, number, quantity, safe, size

_BYTES = ("bytes", "B", "byte")
_MOST = 200
"""Lines of a section."""
_DIGITS = 16
_ALL_DIGITS = 80
_TONES = {"ok": "ok", "warning": "warning", "critical": "critical"}


@dataclass(frozen=True)
class Fact:
    key: str
    value: str
    tone: str = "text"


@dataclass(frozen=True)
class Section:
    title: str
    facts: tuple[Fact, ...]


def sections(row: Row, picture: RunPicture, now: float, *, digits: int = _DIGITS) -> list[Section]:
    """What it is, what was known when it was made, what it consists of.

    Args:
        picture: what it is measured against: the basin and the metrics as they are shown.
        digits: of digests, as many are shown.
    """
    found = [Section("CHECKPOINT", tuple(_identity(row, picture, now, digits)))]
    manifest = row.manifest
    if manifest is None:
        return found
    return [
        *found,
        Section("METRICS  then · now", tuple(_metrics(manifest, picture))),
        Section("CONDITIONS then", tuple(_conditions(manifest))),
        Section("FILES", tuple(_files(manifest, digits))),
        Section("MADE BY", tuple(_origin(manifest, digits))),
    ]


def _identity(row: Row, picture: RunPicture, now: float, digits: int) -> Iterator[Fact]:
    yield Fact("name", safe(row.name, 200), "strong")
    tone = "critical" if row.status != COMPLETE else "ok" if row.is_verified else "text"
    yield Fact("status", f"{row.glyph} {row.status}", tone)
    yield from _seen(row, now)
    if row.left:
        yield Fact("branch", f"▲ left: made {row.left}", "warning")
    rule = "" if rule_of(picture.manifest).recorded else " (no rule is recorded)"
    yield Fact("stays", ", ".join(row.why) if row.why else f"▲ no: it goes at the next prune{rule}",
               "text" if row.why else "warning")  # fmt: skip
    if row.tags:
        yield Fact("tags", ", ".join(safe(tag, 40) for tag in row.tags), "accent")
    yield Fact("written", f"{written(row.entry.t, now)}, {age(row.entry.t, now)}")
    manifest = row.manifest
    if manifest is None:
        return
    yield Fact("step", grouped(manifest.step) + ("" if manifest.regime is None else f", {safe(manifest.regime, 40)}"))
    yield Fact("reason", safe(manifest.reason, 40), "warning" if manifest.reason == "emergency" else "text")
    yield Fact("fingerprint", safe(manifest.fingerprint, _ALL_DIGITS)[:digits])
    if manifest.training_s is not None:
        yield Fact("trained", duration(manifest.training_s))
    distance, why = basin_distance(manifest, picture)
    yield Fact(
        "basin",
        f"{number(distance)} rad from the one shown (Fisher–Rao)" if distance is not None else f"{ABSENT} ({why})",
    )
    position = ", ".join(
        f"{safe(key, 24)} {safe(value, 24)}" for key, value in list(manifest.data_position.items())[:4]
    )
    if position:
        yield Fact("data at", position)


def _seen(row: Row, now: float) -> Iterator[Fact]:
    """How far it was looked into, and what that has shown."""
    checked = row.checked
    if row.problem:
        yield Fact("problem", safe(row.problem, 300), "critical")
        for more in () if checked is None else checked.problems[1:4]:
            yield Fact("", safe(more, 300), "critical")
    if checked is None:
        yield Fact("read", "names and sizes only; v reads every byte", "dim")
        return
    # In the past it is said of now.
    yield Fact("read", f"every byte, {age(checked.t, now) if checked.t <= now else f'at {clock(checked.t)}'}", "dim")
    if checked.nonfinite:
        named = ", ".join(safe(one, 60) for one in checked.nonfinite[:3])
        more = f" and {len(checked.nonfinite) - 3} more" if len(checked.nonfinite) > 3 else ""
        yield Fact("not finite", f"▲ {named}{more}", "warning")
    if checked.tensors is not None:
        beside = f", shapes as in {safe(checked.beside, 40)}" if checked.beside and not checked.differing else ""
        yield Fact("tensors", f"{grouped(checked.tensors)}{beside}")
    for said in checked.differing[:3]:
        yield Fact("shapes", f"▲ {safe(said, 200)}", "warning")


def basin_distance(manifest: CheckpointManifest, picture: RunPicture) -> tuple[float | None, str]:
    """Fisher–Rao, in rad, from a checkpoint's basin to the one that is shown; or None, and why not."""
    shown = picture.basin()
    if shown is None:
        return None, "no basin is shown"
    if manifest.basin is None:
        return None, "it was not measured"
    try:
        values: Floats = np.frombuffer(decode_basin(manifest.basin), dtype="<f4").astype(np.float64)
        total = float(values.sum())
        if values.shape != shown.values.shape or not total > 0:
            return None, "it is of another size"
        return float(fisher_rao_distance(values / total, shown.values)), ""
    except (ValueError, SimplexError) as error:
        return None, f"it is none: {safe(error, 60)}"


def _metrics(manifest: CheckpointManifest, picture: RunPicture) -> Iterator[Fact]:
    for name in list(dict.fromkeys([*manifest.metrics, *manifest.nonfinite]))[:_MOST]:
        value, now = value_of(manifest, name), picture.run_history.latest(name)
        unit = picture.spec(name).unit
        # The unit stands once, but for bytes, of which it is a part of the number.
        once = unit if now is None or unit in _BYTES else ""
        then = quantity(value, once)
        odd = value is not None and not math.isfinite(value)
        yield Fact(picture.label(name), f"{then} · {quantity(now, unit)}", "warning" if odd else "text")


def _conditions(manifest: CheckpointManifest) -> Iterator[Fact]:
    worst = ("critical", "warning")
    order = sorted(
        manifest.conditions.items(),
        key=lambda pair: (pair[1] not in worst, worst.index(pair[1]) if pair[1] in worst else 0),
    )
    for name, state in order[:_MOST]:
        glyph = GLYPHS.get(state, "○")
        yield Fact(safe(name, 40), f"{glyph} {safe(state, 20)}", _TONES.get(state, "dim"))


def _files(manifest: CheckpointManifest, digits: int) -> Iterator[Fact]:
    for file in manifest.files[:_MOST]:
        yield Fact(
            safe(file.path, 60), f"{size(min(max(file.size, 0), 1 << 62))} · {safe(file.blake3, _ALL_DIGITS)[:digits]}"
        )


def _origin(manifest: CheckpointManifest, digits: int) -> Iterator[Fact]:
    yield Fact("session", safe(manifest.session, 40))
    yield Fact("came from", ABSENT if manifest.parent is None else safe(manifest.parent, 60))
    if manifest.git is not None:
        yield Fact(
            "git", safe(manifest.git.revision, _ALL_DIGITS)[:digits] + (" (changed)" if manifest.git.dirty else "")
        )
    for key, digest in (("config", manifest.config_digest), ("corpus", manifest.corpus_digest)):
        if digest:
            yield Fact(key, safe(digest, _ALL_DIGITS)[:digits])
    for name, version in list(manifest.versions.items())[:_MOST]:
        yield Fact(safe(name, 24), safe(version, 40))
