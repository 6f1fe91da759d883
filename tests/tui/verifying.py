"""The child process that verifies checkpoints, replaced: it says at once what a test wants it to."""

import sys
from pathlib import Path


def verification(monkeypatch, *, proceed=None, **bad):
    """Every checkpoint is COMPLETE but the `bad` ones, by step_N=STATUS; told when `proceed` is set."""

    async def verified(argv):
        assert argv[:3] == [sys.executable, "-m", "qig_core.cli"]
        yield {"progress": {"number": 1, "of": 2}}
        if proceed is not None:
            await proceed.wait()
        rows = []
        for folder in (Path(argv[-2]) / "checkpoints").iterdir():
            status = bad.get(f"step_{int(folder.name.removeprefix('step-'))}", "COMPLETE")
            problems = [] if status == "COMPLETE" else ["model.bin does not match its digest"]
            rows.append({"name": folder.name, "step": 1, "status": status, "problems": problems})
        yield {"result": rows}

    monkeypatch.setattr("qig_tui.screens.checkpoint_dialog.child", verified)
