"""Whether a dead run may be started again from what its directory says. Facts of files and hosts; starts nothing."""

import os
import shlex
import stat

from qig_core.rundir.host import host_name
from qig_core.rundir.layout import RunDir
from qig_core.rundir.schema import Manifest


def obstacle(run: RunDir, manifest: Manifest, checkpoint: str | None = None) -> str:
    """The first precondition that does not hold, as a sentence; empty where all do.

    The run is of this host; its directory, run.json and the checkpoint are this user's, no links, and nobody else may
    write them.

    Raises:
        UsageError: a checkpoint's name that is none.
    """
    session = manifest.sessions[-1] if manifest.sessions else None
    if session is not None and session.host != host_name():
        return f"the run is on {session.host!r}; start it there"
    paths = [run.path, run.manifest]
    if checkpoint is not None:
        paths += [run.checkpoint(checkpoint), run.checkpoint_manifest(checkpoint)]
    for path in paths:
        try:
            found = os.lstat(path)
        except OSError as error:
            return f"{str(path)!r} cannot be read: {error.strerror}"
        if stat.S_ISLNK(found.st_mode):
            return f"{str(path)!r} is a link"
        if found.st_uid != os.getuid():
            return f"{str(path)!r} belongs to another user"
        if found.st_mode & 0o022:
            return f"{str(path)!r} can be written by others; run: chmod go-w {shlex.quote(str(path))}"
    return ""
