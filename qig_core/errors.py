"""Everything that can go wrong on purpose, in one tree, and the exit codes of both commands.

    QigError                                70  internal, when nothing below fits
    ├── UsageError (ValueError)              2  the caller asked for something that cannot be
    │   ├── ConfigError                      2  an unknown key, a value of the wrong type or range
    │   ├── CorpusError                      2  empty, binary or missing text
    │   ├── RunNotFound                      2  no run directory there
    │   ├── RunFormatError                   2  a manifest that cannot be read
    │   ├── MissingExtra                     2  an optional dependency that is not installed
    │   ├── SimplexError                     2  not a point of the probability simplex
    │   ├── DensityError                     2  not a density matrix, or not a tangent of one
    │   ├── ProbeError                       2  a probe that does not fit its model
    │   └── PacketError                      2  no basin packet, or one that is damaged or not comparable
    ├── Refused                              1  a command or a change that is not allowed now
    ├── CheckpointError                      1  a checkpoint that is absent, torn or damaged
    ├── RunLocked                           73  another writer holds the run
    └── RecordWriteError (OSError)          74  the disk refused a record

A message says what, where, and what to do; a path is shown with !r.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """What a command tells the shell. A process ended by a signal exits 128 + the signal's number."""

    OK = 0
    FOUND_BAD = 1
    USAGE = 2
    INTERNAL = 70
    LOCKED = 73
    IO = 74
    LIMIT = 75
    COMMAND = 76
    EMERGENCY_CHECKPOINT_FAILED = 77
    DEADLINE = 78


class QigError(Exception):
    """The root of the tree; a command that meets one prints the message and exits with `exit_code`."""

    exit_code = ExitCode.INTERNAL


class UsageError(QigError, ValueError):
    exit_code = ExitCode.USAGE


class ConfigError(UsageError):
    """A configuration key or value that is not understood."""


class CorpusError(UsageError):
    """Text that cannot be trained on."""


class RunNotFound(UsageError):
    """No run directory where one was named."""


class RunFormatError(UsageError):
    """A run directory whose manifest cannot be read."""


class MissingExtra(UsageError):
    """A command needs an optional dependency; the message names the extra to install."""


class SimplexError(UsageError):
    """Input that is not on the probability simplex; the message says which row and by how much."""


class DensityError(UsageError):
    """A matrix that is no density matrix, or a derivative that no family of them has; says what and by how much."""


class ProbeError(UsageError):
    """A probe that does not fit its model; the message says what was found."""


class PacketError(UsageError):
    """No basin packet, or one that is damaged or not comparable; the message says what and where."""


class Refused(QigError):
    """A change or command that is understood but not allowed now."""

    exit_code = ExitCode.FOUND_BAD


class CheckpointError(QigError):
    """A checkpoint that is absent, torn or damaged."""

    exit_code = ExitCode.FOUND_BAD


class RunLocked(QigError):
    """Another process is the writer of this run."""

    exit_code = ExitCode.LOCKED


class RecordWriteError(QigError, OSError):
    """The operating system refused to store a record; what was written before stays readable."""

    exit_code = ExitCode.IO


def exit_code_of(error: BaseException) -> int:
    """What the shell will see of a process that this ends."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if isinstance(error, KeyboardInterrupt):
        return 130
    code = getattr(error, "exit_code", 1)
    return int(code) if isinstance(code, int) else 1
