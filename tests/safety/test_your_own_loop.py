import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qig_core.checkpoints.catalog import list_checkpoints
from qig_core.checkpoints.recovery import load
from qig_core.checkpoints.saving import restorer, saver
from qig_core.errors import CheckpointError, ConfigError, RunLocked, RunNotFound, UsageError
from qig_core.rundir.layout import RunDir, list_runs
from qig_core.rundir.lock import lock_holder
from qig_core.rundir.reader import read_all, read_manifest
from qig_core.rundir.schema import Event, Sample
from qig_core.safety.integrated import IntegratedMonitor
from qig_core.safety.monitor import SafetyMonitor
from qig_core.safety.profile import DEFAULT
from tests import warm

EXAMPLE = Path(__file__).parents[2] / "examples" / "your_own_loop.py"
README = Path(__file__).parents[2] / "README.md"
MODEL = """
import sys
import torch
steps = 30
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
def compute_loss(model, step):
    return model(torch.ones(2, 4)).square().mean()
"""

PROBED = """
import torch
from torch import nn
steps = 30
torch.manual_seed(0)
layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
model = nn.Sequential(nn.Embedding(256, 32), nn.TransformerEncoder(layer, 2), nn.Linear(32, 256))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
heldout_batch = torch.randint(0, 256, (8, 16))
def compute_loss(model, step):
    tokens = torch.randint(0, 256, (4, 17))
    return nn.functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
"""


def the_run(root: Path) -> RunDir:
    (run,) = list_runs(root)
    return run


def test_the_example_runs_to_its_end_and_its_checkpoint_can_be_loaded(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), "--runs", str(tmp_path), "--steps", "300"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    run = the_run(tmp_path)
    (found,) = list_checkpoints(run)
    state, manifest = load(run, found.name)
    assert (manifest.step, manifest.reason, manifest.conditions["divergence"]) == (300, "end", "ok")
    assert set(state) == {"model", "optimizer", "monitor", "global_rng"}
    assert SafetyMonitor.from_state(DEFAULT, state["monitor"]).states() == manifest.conditions
    assert (read_manifest(run).state, read_manifest(run).exit_code) == ("exited", 0)


def snippet_with(text: str) -> str:
    """The one snippet of the README that holds this."""
    (found,) = (
        code
        for code in re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
        if text in code
    )
    return str(found)


def test_the_probed_loop_in_the_readme_records_phi_and_the_basin(tmp_path: Path) -> None:
    done = warm.run(warm.code, PROBED + snippet_with("Probe("), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "layers.1 1 measurement of" in done.stdout
    run = the_run(tmp_path / "runs")
    first = next(record for record in read_all(run.telemetry(), Sample) if isinstance(record, Sample))
    assert {"loss", "phi", "phi_nats", "kappa", "drift_birth"} == set(first.m)
    assert first.basin is not None
    assert first.regime is not None
    assert len(read_manifest(run).config["probe"]["digest"]) == 64


def test_the_loop_in_the_readme_runs_and_keeps_its_last_weights(tmp_path: Path) -> None:
    done = warm.run(warm.code, MODEL + snippet_with("sys.exit"), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    (found,) = list_checkpoints(the_run(tmp_path / "runs"))
    assert found.manifest is not None
    assert (found.manifest.step, found.manifest.reason) == (30, "end")


def test_the_example_stops_in_order_on_sigterm(tmp_path: Path) -> None:
    process = warm.Warm(warm.file, [EXAMPLE, "--runs", tmp_path, "--steps", "1000000"])
    try:
        end = time.monotonic() + 60
        while not any(run.telemetry().stat().st_size > 10_000 for run in list_runs(tmp_path)):
            assert time.monotonic() < end
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, text = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 143, text
    run = the_run(tmp_path)
    (found,) = list_checkpoints(run)
    _, manifest = load(run, found.name)
    assert manifest.reason == "emergency"
    assert read_manifest(run).exit_code == 143
    assert f"checkpoint {found.name}" in text


def run_example(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return warm.run(warm.file, EXAMPLE, *arguments)


def test_the_example_goes_on_with_its_run(tmp_path: Path) -> None:
    assert run_example("--runs", tmp_path, "--steps", "20").returncode == 0
    done = run_example("--runs", tmp_path, "--steps", "30", "--resume", "a noisy sine")
    assert (done.returncode, done.stderr) == (0, "")
    run = the_run(tmp_path)
    manifest = read_manifest(run)
    newest, before = list_checkpoints(run)
    assert (newest.step, before.step, manifest.total_steps) == (30, 20, 30)
    assert [session.resumed_from for session in manifest.sessions] == [None, before.name]
    again = run_example("--runs", tmp_path, "--steps", "30", "--resume", "latest")
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    assert "nothing is left to do" in again.stderr
    assert len(read_manifest(run).sessions) == 2


# Its data come from all three generators, by what the steps before have drawn; and some steps are said to be fatal.
LOOP = """
import os, random, signal, sys
import numpy as np
import torch
from qig_core.checkpoints.saving import restorer, saver
from qig_core.safety.integrated import IntegratedMonitor

root, resume, fatal = sys.argv[1], sys.argv[2] or None, int(sys.argv[3])
torch.manual_seed(1); np.random.seed(2); random.seed(3)
model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.2), torch.nn.Linear(8, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

def load_state(state):
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    torch.rand(7)  # loading may draw: it must not matter

state = lambda: {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
save = saver(state, asynchronous=False)  # a kill would race with a save in the background
with IntegratedMonitor.open(
    root, name="mine", save=save, checkpoint_every=10, profile="off", restore=restorer(load_state), resume=resume
) as monitor:
    for step in range(monitor.first_step, 60):
        x = torch.rand(8, 4) + torch.from_numpy(np.random.normal(size=(8, 4))).float() * random.gauss(0, 1)
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        if step == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        if not monitor.check(step, {"loss": loss.item()}):
            break
        optimizer.step()
    monitor.finish(60)
"""


def run_loop(root: Path, resume: str = "", fatal: int = -1) -> RunDir:
    done = warm.run(warm.code, LOOP, root, resume, str(fatal))
    assert done.returncode == (0 if fatal < 0 else -signal.SIGKILL), done.stderr
    return the_run(root)


def test_a_killed_loop_goes_on_in_its_run_to_the_same_bits(tmp_path: Path) -> None:
    whole = run_loop(tmp_path / "whole")
    for fatal, resume in ((27, ""), (35, "mine")):
        run_loop(tmp_path / "torn", resume, fatal)
    torn = run_loop(tmp_path / "torn", "latest@20")
    mine, theirs = list_checkpoints(torn)[0], list_checkpoints(whole)[0]
    assert mine.step == theirs.step == 60
    for file in ("model.safetensors", "optimizer.safetensors", "global_rng.safetensors"):
        assert (mine.path / file).read_bytes() == (theirs.path / file).read_bytes(), file

    restored = [e for e in read_all(torn.events, Event) if isinstance(e, Event) and e.kind == "restored"]
    assert [event.step for event in restored] == [20, 20]
    name = restored[0].data["checkpoint"]
    starts = [e for e in read_all(torn.events, Event) if isinstance(e, Event) and e.kind == "start"]
    assert [event.data["resumed_from"] for event in starts] == [None, name, name]
    assert (
        restored[0].data["fingerprint"]
        == next(c for c in list_checkpoints(torn) if c.name == name).manifest.fingerprint
    )  # type: ignore[union-attr]  # listed as complete
    assert [session.resumed_from for session in read_manifest(torn).sessions] == [None, name, name]
    losses = {s.step: s.m["loss"] for s in read_all(torn.telemetry(), Sample) if isinstance(s, Sample)}
    assert losses == {s.step: s.m["loss"] for s in read_all(whole.telemetry(), Sample) if isinstance(s, Sample)}


def made(root: Path, steps: int = 3) -> RunDir:
    """A run of a loop whose whole state is one number, with a checkpoint after each step but the first."""
    with IntegratedMonitor.open(root, save=saver(lambda: {"n": 5}), checkpoint_every=1) as monitor:
        for step in range(steps):
            monitor.check(step, {"loss": 1.0})
    return monitor.writer.run


def test_a_damaged_checkpoint_is_set_aside_and_told_and_the_one_before_is_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = made(tmp_path, steps=4)
    newest, before, _ = list_checkpoints(run)
    (newest.path / "state.json").write_bytes(b"{}")
    seen: list[dict[str, Any]] = []
    with IntegratedMonitor.open(tmp_path, restore=restorer(seen.append), resume="latest") as monitor:
        assert monitor.first_step == before.step == 2
        assert monitor.safety.states()["nonfinite"] == "ok"
    assert seen[0]["n"] == 5
    assert f"qig: {newest.name} is TORN and was set aside as .bad-{newest.name}\n" in capsys.readouterr().err
    told = [e.kind for e in read_all(run.events, Event) if isinstance(e, Event)]
    assert told.index("quarantined") < told.index("restored")


def test_a_resume_that_cannot_be_is_refused_before_the_run_is_touched(tmp_path: Path) -> None:
    run = made(tmp_path / "runs")
    bare = made(tmp_path / "bare", steps=1)
    untouched = {path: path.manifest.read_bytes() for path in (run, bare)}

    def never(state: dict[str, Any]) -> None:
        raise AssertionError("nothing is to be loaded")

    def resume(where: RunDir, selector: str = "", **more: Any) -> None:
        IntegratedMonitor.open(tmp_path, resume=f"{where.path}{selector}", restore=restorer(never), **more)

    with pytest.raises(UsageError, match="needs restore"):
        IntegratedMonitor.open(tmp_path, resume=str(run.path))
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        resume(bare)
    with pytest.raises(CheckpointError, match="no complete checkpoint of step 99"):
        resume(run, "@99")
    with pytest.raises(ConfigError, match="nothing is left to do"):
        resume(run, total_steps=2)
    assert {path: path.manifest.read_bytes() for path in (run, bare)} == untouched
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunLocked, match=f"process {holder.pid}"):
            resume(run)
    finally:
        holder.communicate("")


HOLD = """
import sys
from qig_core.rundir.layout import RunDir
from qig_core.rundir.lock import RunLock
lock = RunLock(RunDir(sys.argv[1]).lock)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_resume_that_is_refused_while_it_loads_leaves_the_run_as_it_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = made(tmp_path)
    newest, before = list_checkpoints(run)
    recorded = {path: path.read_bytes() for path in (run.manifest, run.events, run.telemetry(), run.heartbeat)}

    def refused(resume: str, load: Callable[[dict[str, Any]], object], error: type[Exception], why: str) -> None:
        with pytest.raises(error, match=why):
            IntegratedMonitor.open(tmp_path, restore=restorer(load), resume=resume)
        assert {path: path.read_bytes() for path in recorded} == recorded
        assert lock_holder(run.lock) is None

    refused("latest", lambda state: state["model"], ConfigError, "does not fit")
    refused("latest", lambda state: state["n"].none, AttributeError, "none")  # a mistake of the loop's own
    (newest.path / "state.json").write_bytes(b"{}")
    refused(f"latest@{newest.name}", lambda state: None, CheckpointError, "is not loaded, it is TORN")
    assert newest.path.is_dir()
    (before.path / "state.json").write_bytes(b"{}")
    refused("latest", lambda state: None, CheckpointError, "no sound checkpoint is left")
    assert capsys.readouterr().err.splitlines() == [
        f"qig: {one.name} is TORN and was set aside as .bad-{one.name}" for one in (newest, before)
    ]
    assert made(tmp_path).id != run.id


def test_a_finished_loop_is_not_trained_again_where_its_total_is_known(tmp_path: Path) -> None:
    with IntegratedMonitor.open(tmp_path, total_steps=2, save=saver(lambda: {"n": 5})) as monitor:
        for step in range(2):
            assert monitor.check(step, {"loss": 1.0})
        monitor.finish(2)
    ended = monitor.writer.run.manifest.read_bytes()
    with pytest.raises(ConfigError, match="the run's total is 2: nothing is left to do"):
        IntegratedMonitor.open(tmp_path, restore=restorer(lambda state: None), resume="latest")
    assert monitor.writer.run.manifest.read_bytes() == ended
    with IntegratedMonitor.open(tmp_path, total_steps=3, restore=restorer(lambda state: None), resume="latest") as more:
        assert more.first_step == 2


def test_an_empty_selector_is_refused_and_is_not_the_newest(tmp_path: Path) -> None:
    run = made(tmp_path)
    with pytest.raises(UsageError, match="missing after the @"):
        IntegratedMonitor.open(tmp_path, restore=restorer(lambda state: None), resume=f"{run.id}@")


def test_a_loop_that_saves_its_generators_itself_is_left_alone(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    with IntegratedMonitor.open(tmp_path, save=saver(lambda: {"rng": [1, 2]})) as monitor:
        monitor.finish(1)
    with IntegratedMonitor.open(tmp_path, restore=restorer(seen.append), resume="latest"):
        pass
    assert set(seen[0]) == {"rng", "monitor"}


def test_a_run_whose_directory_vanishes_stops_with_one_sentence_and_74(tmp_path: Path) -> None:
    process = warm.Warm(warm.file, [EXAMPLE, "--runs", tmp_path / "runs", "--steps", "10000000"])
    try:
        end = time.monotonic() + 60
        while not any(run.telemetry().stat().st_size > 10_000 for run in list_runs(tmp_path / "runs")):
            assert time.monotonic() < end
            time.sleep(0.05)
        os.rename(tmp_path / "runs", tmp_path / "elsewhere")
        _, text = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 74
    (line,) = [line for line in text.splitlines() if "stopped at step" in line]
    assert "is gone, deleted or moved" in line
    assert line.endswith("exit code 74")


def finished(root: Path, name: str, steps: int = 3) -> RunDir:
    """A run of this name with a checkpoint at its end."""
    with IntegratedMonitor.open(root, name=name, total_steps=steps, save=saver(dict)) as monitor:
        for step in monitor.steps():
            monitor.check(step, {"loss": 1.0})
    return monitor.writer.run


def test_latest_is_the_newest_run_of_this_name(tmp_path: Path) -> None:
    mine, _ = finished(tmp_path, "mine"), finished(tmp_path, "another")
    back = restorer(lambda state: None)
    with IntegratedMonitor.open(tmp_path, name="mine", total_steps=9, restore=back, resume="latest") as monitor:
        assert monitor.writer.run.path == mine.path
    with pytest.raises(RunNotFound, match="is named 'third'; resume='auto' would begin one"):
        IntegratedMonitor.open(tmp_path, name="third", restore=back, resume="latest")


def test_auto_goes_on_where_there_is_something_to_go_on_with_and_begins_anew_where_not(tmp_path: Path) -> None:
    back = restorer(lambda state: None)
    with IntegratedMonitor.open(tmp_path, name="mine", restore=back, resume="auto") as first:
        first.check(0, {"loss": 1.0})  # killed before its first checkpoint, so to say
    finished(tmp_path, "another")
    with IntegratedMonitor.open(
        tmp_path, name="mine", total_steps=3, save=saver(dict), restore=back, resume="auto"
    ) as second:
        assert second.writer.run.path != first.writer.run.path
        for step in second.steps():
            second.check(step, {"loss": 1.0})
    with IntegratedMonitor.open(tmp_path, name="mine", total_steps=9, restore=back, resume="auto") as third:
        assert (third.writer.run.path, third.first_step) == (second.writer.run.path, 3)
