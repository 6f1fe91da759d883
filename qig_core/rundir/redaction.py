"""What must not be written down: secret-looking values of a configuration and of a command line. Pure."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from qig_core.rundir.values import kind_of_nonfinite

HIDDEN = "***"

_SECRET = re.compile(
    r"secret|passw(or)?d|passphrase|(api|access|private)[_-]?key|credential|authorization|webhook|token$|[_-](pat|dsn)$",
    re.IGNORECASE,
)
# A vocabulary's special tokens are settings, not secrets.
_VOCABULARY = re.compile(r"(bos|eos|pad|unk|sep|cls|mask|start|end|stop|special)[_-]?token$", re.IGNORECASE)
_IN_ADDRESS = re.compile(r"(?<=://)([^/\s:@]*):[^/\s@]+@")
_OPTION = re.compile(r"(-{0,2}[A-Za-z][\w.-]*)=(.*)", re.DOTALL)


def _is_secret(key: str) -> bool:
    return _SECRET.search(key) is not None and _VOCABULARY.search(key) is None


def redact(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as it may be recorded: what stands under a secret-looking key becomes "***".

    Numbers, booleans and None stay, except that a number that is not finite becomes "nan", "inf" or "-inf"; so does
    the password in an address. Twice is the same as once.
    """
    return {key: _hidden(value) if _is_secret(str(key)) else _redacted(value) for key, value in config.items()}


def _hidden(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _hidden(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_hidden(each) for each in value]
    if value is None or isinstance(value, (bool, int, float)):
        return _redacted(value)
    return HIDDEN if value else value


def _redacted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return redact(value)
    if isinstance(value, (list, tuple)):
        return [_redacted(each) for each in value]
    if isinstance(value, str):
        return _IN_ADDRESS.sub(rf"\1:{HIDDEN}@", value)
    if isinstance(value, float) and value - value != 0:
        return kind_of_nonfinite(value)
    return value


def redact_argv(argv: Sequence[str]) -> list[str]:
    """A command line as it may be recorded: `--api-key=X`, `--api-key X` and `API_KEY=X` without their X."""
    out: list[str] = []
    hide_next = False
    for argument in argv:
        option = _OPTION.fullmatch(argument)
        if hide_next and not argument.startswith("--"):
            out.append(HIDDEN)
        elif option and _is_secret(option[1]):
            out.append(f"{option[1]}={HIDDEN}")
        else:
            out.append(_redacted(argument))
        hide_next = argument.startswith("-") and option is None and _is_secret(argument)
    return out
