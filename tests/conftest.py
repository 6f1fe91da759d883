"""What holds for every test."""

import os
import signal
import tempfile
from pathlib import Path

from hypothesis import settings

# How long an example takes says how busy the machine is, and nothing of what is tested.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# Nobody is to be alerted by a test: the settings of whoever runs them are not theirs.
os.environ.pop("QIG_SETTINGS", None)
# Nor is what they chose in their dashboard.
os.environ["QIG_DASHBOARD_STATE"] = os.path.join(tempfile.mkdtemp(), "dashboard.json")
os.environ["XDG_CONFIG_HOME"] = str(Path(__file__).parent / "no-settings-here")

# A shell that runs `make test &`, or nohup, lets its children ignore these, and a run respects that. Tests send them.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
