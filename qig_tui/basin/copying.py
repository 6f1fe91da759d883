"""A basin as text to paste elsewhere: every digit that it takes to read the same numbers again. Pure."""

import json

from qig_tui.series import Floats
from qig_tui.text import safe

MANY_BYTES = 74_994
"""More than this xterm and tmux do not put into the clipboard: their limit is 100 000 bytes in base64."""


def as_json(run_id: str, step: int, values: Floats) -> str:
    """{"run": ..., "step": ..., "basin": [...]}: the numbers in their shortest form that reads back the same."""
    return json.dumps({"run": run_id, "step": step, "basin": values.tolist()})


def as_numpy(run_id: str, step: int, values: Floats) -> str:
    """np.array([...]) and a comment that says of what."""
    numbers = ", ".join(map(repr, values.tolist()))
    return f"np.array([{numbers}])  # basin of {safe(run_id, 100)}, step {step}"
