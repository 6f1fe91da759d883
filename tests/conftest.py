"""What holds for every test."""

import gc
import os
import signal
import tempfile
from pathlib import Path

from hypothesis import settings

# How long an example takes says how busy the machine is, and nothing of what is tested.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# The workers of pytest-xdist share the cores already: threads of OpenMP beside them only spin, and doubled the CPU time
# of a test. Set before torch is imported, here and in every process that a test starts.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A third of the time went into looking through what stays anyway: modules, and the tests themselves.
gc.set_threshold(10_000, 10, 10)


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()


# Nobody is to be alerted by a test: the settings of whoever runs them are not theirs.
os.environ.pop("QIG_SETTINGS", None)
# Nor is what they chose in their dashboard.
os.environ["QIG_DASHBOARD_STATE"] = os.path.join(tempfile.mkdtemp(), "dashboard.json")
os.environ["XDG_CONFIG_HOME"] = str(Path(__file__).parent / "no-settings-here")

# A shell that runs `make test &`, or nohup, lets its children ignore these, and a run respects that. Tests send them.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
