"""What a person types to see fewer runs: parsed to plain values that judge one run at a time. No Textual, no disk.

    state:live phi>0.7          both hold
    state:live OR state:busy phi>0.7    OR binds tighter than a space: (live or busy) and phi
    name~charlie  -worst:critical  "two words"  age<2h

A metric that a run does not have fits no comparison; so `-phi>0.7` keeps a run that has no phi.
"""

import math
import operator
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

from qig_core.rundir.liveness import Word
from qig_tui.journal import STATES

UNREADABLE = "unreadable"
NO_RUN = "norun"
RUN_STATES = (*(word.lower() for word in Word), UNREADABLE, NO_RUN)
NO_VERDICT = "none"
VERDICTS = (NO_VERDICT, *STATES)
_WORDS = {"state": RUN_STATES, "worst": VERDICTS}
"""Keys of which the values are known."""
_TEXTS = (*_WORDS, "name", "id", "program")
_NUMBERS = ("step", "total", "share", "age")
_ALIASES = {
    "alerts": "worst",
    "safety": "worst",
    "run": "name",
    "Φ": "phi",
    "φ": "phi",
    "ϕ": "phi",
    "Κ": "kappa",
    "κ": "kappa",
    "ϰ": "kappa",
    "drift": "drift_rolling",
}
_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "=": operator.eq,
}
_OPERATORS = (*_COMPARISONS, ":", "~")
_NUMBER = re.compile(r"[+-]?(?:(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|inf|nan)")
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]*)?[smhd])+")
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?)([smhd])")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PLAIN = re.compile(r"[\w.][\w.-]*")
_AROUND = re.compile(r"\s*(<=|>=|!=|<|>|=)\s*")
"""A comparison may be typed with blanks around it."""
_OR = "OR"


class FilterError(ValueError):
    """What is wrong with a filter, and what would be right; a sentence for the person who types it."""


class Facts(Protocol):
    """What a filter may ask of a run."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def program(self) -> str: ...
    @property
    def state(self) -> str:
        """One of RUN_STATES."""

    @property
    def worst(self) -> str:
        """One of VERDICTS."""

    def number(self, key: str, now: float) -> float | None:
        """A metric, or step, total, share (0 to 1), age (seconds); None where it is not known."""


@dataclass(frozen=True)
class Bare:
    """A word that stands in the name or in the id."""

    text: str

    def fits(self, run: Facts, now: float) -> bool:
        wanted = self.text.casefold()
        return wanted in run.name.casefold() or wanted in run.id.casefold()

    def __str__(self) -> str:
        return _quoted(self.text)


@dataclass(frozen=True)
class Text:
    """A text is one of several values (":"), or contains one of them ("~"); capitals do not matter."""

    key: str
    how: str
    values: tuple[str, ...]

    def fits(self, run: Facts, now: float) -> bool:
        found = str(getattr(run, self.key)).casefold()
        if self.how == "~":
            return any(value.casefold() in found for value in self.values)
        return any(value.casefold() == found for value in self.values)

    def __str__(self) -> str:
        return f"{self.key}{self.how}{','.join(map(_quoted, self.values))}"


@dataclass(frozen=True)
class Comparison:
    """A number against another; nan equals nan here, so that it can be looked for."""

    key: str
    how: str
    value: float

    def fits(self, run: Facts, now: float) -> bool:
        found = run.number(self.key, now)
        if found is None:
            return False
        if math.isnan(found) and math.isnan(self.value):
            return self.how in ("=", "<=", ">=")
        return _COMPARISONS[self.how](found, self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Comparison) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __str__(self) -> str:
        return f"{_quoted(self.key)}{self.how}{self.value!r}{'s' if self._is_time else ''}"

    @property
    def _is_time(self) -> bool:
        return self.key == "age" and _DURATION.fullmatch(f"{self.value!r}s") is not None


@dataclass(frozen=True)
class Term:
    """One condition, or its opposite."""

    test: Bare | Text | Comparison
    negated: bool = False

    def fits(self, run: Facts, now: float) -> bool:
        return self.test.fits(run, now) != self.negated

    def __str__(self) -> str:
        return f"{'-' if self.negated else ''}{self.test}"


@dataclass(frozen=True)
class Filter:
    """Of every group one term at least holds; no group is no filter."""

    groups: tuple[tuple[Term, ...], ...] = ()

    def fits(self, run: Facts, now: float) -> bool:
        """Args: now: unix seconds, what ages are reckoned from."""
        return all(any(term.fits(run, now) for term in group) for group in self.groups)

    @property
    def keys(self) -> frozenset[str]:
        """The numbers it asks for."""
        tests = (term.test for group in self.groups for term in group)
        return frozenset(test.key for test in tests if isinstance(test, Comparison))

    def __str__(self) -> str:
        """A text that parses to the same filter."""
        return " ".join(f" {_OR} ".join(map(str, group)) for group in self.groups)


def parse(text: str, metrics: Collection[str] | None = None) -> Filter:
    """A filter as it is typed.

    Args:
        metrics: the names that the runs have; None: any name may be one.

    Raises:
        FilterError: it means nothing; the message says what would.
    """
    groups: list[list[Term]] = []
    joins = False
    for token in _tokens(_AROUND.sub(r"\1", text) if '"' not in text else text):
        if token == [(c, False) for c in _OR]:
            if joins or not groups:
                raise FilterError(f"{_OR} stands between two terms: state:live {_OR} state:busy")
            joins = True
            continue
        term = _term(token, metrics)
        if joins:
            groups[-1].append(term)
        else:
            groups.append([term])
        joins = False
    if joins:
        raise FilterError(f"a term is missing after {_OR}")
    return Filter(tuple(map(tuple, groups)))


_Char = tuple[str, bool]
"""A character, and whether it was quoted: then it is never an operator."""


def _tokens(text: str) -> list[list[_Char]]:
    found: list[list[_Char]] = []
    token: list[_Char] | None = None
    quoted = escaped = False
    for character in text:
        if quoted:
            assert token is not None
            if escaped:
                token.append((character, True))
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == '"':
                quoted = False
            else:
                token.append((character, True))
        elif character.isspace():
            if token is not None:
                found.append(token)
            token = None
        else:
            token = [] if token is None else token
            if character == '"':
                quoted = True
                # So that "" is a value too, an empty one.
                token.append(("", True))
            else:
                token.append((character, False))
    if quoted:
        raise FilterError('a " is not closed')
    if token is not None:
        found.append(token)
    return found


def _term(token: list[_Char], metrics: Collection[str] | None) -> Term:
    negated = token[0] == ("-", False)
    if negated:
        token = token[1:]
        if not token:
            raise FilterError("a term is missing after -")
    at, how = _operator(token)
    if not how:
        word = _joined(token)
        if not word:
            raise FilterError('"" is an empty word: it would fit every run')
        return Term(Bare(word), negated)
    name, rest = _joined(token[:at]), token[at + len(how) :]
    if not name:
        raise FilterError(f"a key is missing before {how}: name, state, phi …")
    key = _key(name, metrics)
    if key in _TEXTS:
        if how not in (":", "~", "=", "!="):
            raise FilterError(f"{key} is a text: {key}:{_example(key)} or {key}~{_example(key)[:4]}")
        values = _values(key, how, rest)
        return Term(Text(key, "~" if how == "~" else ":", values), negated != (how == "!="))
    value = _joined(rest)
    if how not in _COMPARISONS:
        raise FilterError(f"{name} is a number: {name}>{value if _NUMBER.fullmatch(value) else '0.7'}")
    return Term(Comparison(key, how, _number(key, name, how, value)), negated)


def _operator(token: list[_Char]) -> tuple[int, str]:
    """The first one outside quotes, and where it stands."""
    for at in range(len(token)):
        for how in _OPERATORS:
            if token[at : at + len(how)] == [(c, False) for c in how]:
                return at, how
    return 0, ""


def _joined(token: list[_Char]) -> str:
    return "".join(character for character, _ in token)


def _key(name: str, metrics: Collection[str] | None) -> str:
    if name in _TEXTS or name in _NUMBERS or (metrics is not None and name in metrics):
        return name
    low = name.lower()
    key = _ALIASES.get(name) or _ALIASES.get(low) or (low if low in _TEXTS or low in _NUMBERS else name)
    if metrics is None or key in _TEXTS or key in _NUMBERS or key in metrics:
        return key
    if low in metrics:
        return low
    if key in _ALIASES.values():
        # The name is known; that no run has it yet is no mistake.
        return key
    near = _nearest(name, [*_TEXTS, *_NUMBERS, *_ALIASES, *metrics])
    hint = f"; nearest is {near}" if near else f'; a word with an operator in it is quoted: "{name}…"'
    raise FilterError(f"no run has {name}{hint}")


def _values(key: str, how: str, token: list[_Char]) -> tuple[str, ...]:
    parts: list[list[_Char]] = [[]]
    for character in token:
        if character == (",", False):
            parts.append([])
        else:
            parts[-1].append(character)
    if not all(parts):
        raise FilterError(f"a value is missing, as in {key}{how}{_example(key)}")
    values = tuple(map(_joined, parts))
    known = _WORDS.get(key)
    if known is None or how == "~":
        return values
    words = []
    for value in values:
        word = value.lower().replace(" ", "")
        if word not in known:
            near = _nearest(word, known)
            raise FilterError(f"no {key} is {value}; " + (f"nearest is {near}" if near else ", ".join(known)))
        words.append(word)
    return tuple(words)


def _number(key: str, name: str, how: str, text: str) -> float:
    if _NUMBER.fullmatch(text):
        return float(text)
    if key == "share" and text.endswith("%") and _NUMBER.fullmatch(text[:-1]):
        return float(text[:-1]) / 100
    if key == "age":
        if _DURATION.fullmatch(text):
            return sum(float(count) * _SECONDS[unit] for count, unit in _PART.findall(text))
        raise FilterError(f"{text or 'nothing'} is no duration: age{how}90s, 15m, 2h, 1d12h")
    raise FilterError(f"{text or 'nothing'} is no number: {name}{how}0.7")


def _example(key: str) -> str:
    return {"state": "live", "worst": "critical", "program": "train"}.get(key, "charlie")


def _nearest(word: str, known: Collection[str]) -> str:
    # Only where somebody mistyped.
    from difflib import get_close_matches

    found = get_close_matches(word, known, n=1)
    return found[0] if found else next((k for k in known if word and k.startswith(word)), "")


def _quoted(text: str) -> str:
    if _PLAIN.fullmatch(text) and text != _OR:
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
