"""What is wrong with a run directory: findings as plain data, each with a state, a sentence and perhaps a cure.

It changes nothing and must stay able to look at anything: a live run, a read-only one, a hopelessly damaged one. What
cannot be read is a finding, never an exception. No rendering, no torch.
"""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from qig_core.commands.examination.access import permissions
from qig_core.commands.examination.disk import checkpoints, file_system, leftovers
from qig_core.commands.examination.finding import Finding, Known, Row, State, Steps
from qig_core.commands.examination.records import records
from qig_core.commands.examination.writer import document, heartbeat, lock, mailbox
from qig_core.errors import QigError, RunFormatError, RunNotFound
from qig_core.rundir.layout import RunDir, resolve_run
from qig_core.rundir.lock import lock_holder
from qig_core.rundir.reader import format_of, read_manifest
from qig_core.rundir.schema import FORMAT, Manifest
from qig_core.rundir.values import is_run_id, without_surrogates

_STATES: tuple[State, ...] = ("ok", "warning", "bad")


def find(text: str, root: Path) -> RunDir:
    """RUN as everywhere; also a directory that no other command takes for a run.

    Raises:
        RunNotFound: nothing is there. UsageError: several runs have this name.
    """
    try:
        return resolve_run(text, root)
    except RunNotFound:
        if ("/" in text or "." in text) and os.path.isdir(text):
            return RunDir(Path(text).resolve())
        if is_run_id(text) and os.path.isdir(root / text):
            return RunDir(root / text)
        raise


def examine(run: RunDir, *, verify: bool = False, uid: int | None = None) -> Iterator[Row]:
    """Look at everything: {"progress": {...}} as it goes, at last {"result": {...}}.

    progress: check, done and total (bytes).
    result: id, path, ok, warning and bad (counts), findings (list of check, state, what, cure).

    Args:
        verify: read every byte of every checkpoint as well.
        uid: whose the run should be; None for this process's user.
    """
    findings: list[Finding] = []
    for step in _checks(run, verify, os.getuid() if uid is None else uid):
        if isinstance(step, Finding):
            findings.append(step)
        else:
            yield {"progress": step}
    counts = Counter(finding.state for finding in findings)
    result: Row = {"id": run.id, "path": str(run.path), **{state: counts[state] for state in _STATES}}
    # A file may be called anything; JSON holds Unicode.
    yield {"result": without_surrogates({**result, "findings": [finding.row() for finding in findings]})}


def _checks(run: RunDir, verify: bool, uid: int) -> Steps:
    if (number := _newer_format(run)) is not None:
        what = f"run.json has format {number}; this program reads {FORMAT}: nothing else was looked at; upgrade qig-tui"
        yield Finding(check="format", state="bad", what=what)
        return
    known = _look(run)
    yield from _guarded("format", document(known))
    yield from _guarded("records", records(known))
    yield from _guarded("lock", lock(known))
    yield from _guarded("heartbeat", heartbeat(known))
    yield from _guarded("permissions", permissions(known, uid))
    yield from _guarded("file system", file_system(known))
    yield from _guarded("checkpoints", checkpoints(known, verify))
    yield from _guarded("checkpoints", leftovers(known))
    yield from _guarded("mailbox", mailbox(known))


def _newer_format(run: RunDir) -> int | None:
    try:
        number = format_of(run)
    except RunFormatError:
        return None  # `document` says why
    return number if number > FORMAT else None


def _guarded(check: str, steps: Steps) -> Steps:
    try:
        yield from steps
    except QigError as error:
        yield Finding(check=check, state="bad", what=f"could not be looked at any further: {error}")
    except OSError as error:
        what = f"could not be looked at any further: {error.filename!r}: {error.strerror or error}"
        yield Finding(check=check, state="bad", what=what)


def _look(run: RunDir) -> Known:
    """The manifest and the lock of one moment: a run may begin or end while both are read."""
    for _ in range(3):
        manifest: Manifest | None = None
        holder = lock_holder(run.lock)
        try:
            manifest = read_manifest(run)
        except RunFormatError:
            pass  # `document` says why
        if lock_holder(run.lock) == holder:
            break
    return Known(run=run, manifest=manifest, holder=holder)
