"""In what several runs differ beside their numbers: configuration, and what they ran on. Pure."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qig_core.rundir.schema import Manifest

CONFIGURATION, SURROUNDINGS = "configuration", "ran on"
MAX_KEYS = 5000
"""More of one run are not compared."""
_MAX_DEPTH = 12


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One key by which at least two of the runs differ. What stands in it is as files say it."""

    section: str
    key: str
    values: tuple[str | None, ...]
    """Of each run in turn; None: it has no such key."""


def differences(manifests: Sequence[Manifest]) -> list[Difference]:
    """The configuration first, then what a run depends on beside it; each in the order of the first that has it."""
    found = []
    for section, parts in ((CONFIGURATION, _configuration), (SURROUNDINGS, _surroundings)):
        flat = [dict(zip_first(flattened(parts(manifest)))) for manifest in manifests]
        keys = dict.fromkeys(key for one in flat for key in one)
        for key in keys:
            values = tuple(one.get(key) for one in flat)
            if len(set(values)) > 1:
                found.append(Difference(section=section, key=key, values=values))
    return found


def zip_first(pairs: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """As many of the pairs as are compared."""
    return (pair for _, pair in zip(range(MAX_KEYS), pairs, strict=False))


def _configuration(manifest: Manifest) -> dict[str, Any]:
    return manifest.config


def _surroundings(manifest: Manifest) -> dict[str, Any]:
    session = manifest.sessions[-1] if manifest.sessions else None
    git = manifest.git
    return {
        "program": manifest.program,
        "total_steps": manifest.total_steps,
        "threads": manifest.threads,
        "host": None if session is None else session.host,
        "git": None if git is None else f"{git.revision}{' with changes' if git.dirty else ''}",
        "versions": manifest.versions,
        "corpus": manifest.corpus,
        "probe": manifest.probe,
        "profile": manifest.profile,
        "keep": manifest.keep,
    }


def flattened(value: Mapping[str, Any], before: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """Dotted keys and their values as text; a list of plain values is one value."""
    for name, part in value.items():
        key = f"{before}{name}"
        if isinstance(part, list) and any(isinstance(one, dict | list) for one in part):
            part = {str(i): one for i, one in enumerate(part)}
        if isinstance(part, dict) and part and depth < _MAX_DEPTH:
            yield from flattened(part, f"{key}.", depth + 1)
        else:
            yield key, _text(part)


def _text(value: Any) -> str:
    """1 and 1.0 are the same; 1 and "1" are not, nor are null and a key that is not there."""
    if isinstance(value, str):
        # A text that would read as something else stands in quotes.
        return value if value and value == value.strip() and not _reads_as_json(value) else json.dumps(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    try:
        return json.dumps(value, ensure_ascii=False)
    except (ValueError, RecursionError):
        # A number of thousands of digits, or what is nested as deeply.
        return "more than can be written out"


def _reads_as_json(text: str) -> bool:
    return text in ("true", "false", "null") or (text[0] in '"{[-0123456789' and _parses(text))


def _parses(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
