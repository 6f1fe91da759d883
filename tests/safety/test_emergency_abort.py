import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from qig_core.safety.abort import AbortState, Cause, EmergencyAbortHandler

COMMAND = Cause.command("abort by me@here")


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=30, check=False
    )


def test_an_abort_goes_one_way() -> None:
    handler = EmergencyAbortHandler(signals=False)
    with handler:
        assert (handler.state, handler.asked, handler.cause) == (AbortState.ARMED, False, None)
        assert handler.request(COMMAND) == COMMAND
        assert (handler.state, handler.asked) == (AbortState.REQUESTED, True)
        handler.advance(AbortState.CHECKPOINTING)
        handler.advance(AbortState.STOPPED)
        with pytest.raises(AssertionError):
            handler.advance(AbortState.CHECKPOINTING)
    assert [stage for stage, _ in handler.stages] == ["requested", "checkpointing", "stopped"]
    times = [t for _, t in handler.stages]
    assert times == sorted(times)


def test_the_first_cause_stands() -> None:
    with EmergencyAbortHandler() as handler:
        os.kill(os.getpid(), signal.SIGTERM)
        assert handler.request(COMMAND) == Cause("signal", "SIGTERM", 143)
        assert handler.request(Cause.limit("divergence")).exit_code == 143


@pytest.mark.parametrize(
    ("cause", "code"), [(Cause.limit("x"), 75), (COMMAND, 76), (Cause.signal(15), 143), (Cause.signal(2), 130)]
)
def test_a_cause_knows_its_exit_code(cause: Cause, code: int) -> None:
    assert cause.exit_code == code


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_only_sets_attributes(signum: signal.Signals) -> None:
    with EmergencyAbortHandler() as handler:
        os.kill(os.getpid(), signum)
        assert (handler.asked, handler.signum, handler.state) == (True, signum, AbortState.ARMED)
        assert handler.cause == Cause("signal", signum.name, 128 + signum)
        assert handler.state == AbortState.REQUESTED


def test_previous_handlers_are_called_and_restored() -> None:
    heard: list[int] = []
    old = signal.signal(signal.SIGTERM, lambda signum, frame: heard.append(signum))
    try:
        mine = signal.getsignal(signal.SIGTERM)
        with EmergencyAbortHandler() as handler:
            assert handler.listening
            os.kill(os.getpid(), signal.SIGTERM)
            assert handler.asked
        assert heard == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) is mine
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.set_wakeup_fd(-1) == -1
    finally:
        signal.signal(signal.SIGTERM, old)


def test_a_handler_that_came_later_is_left_in_place() -> None:
    def later(signum: int, frame: object) -> None: ...

    old = signal.getsignal(signal.SIGTERM)
    try:
        with EmergencyAbortHandler():
            signal.signal(signal.SIGTERM, later)
        assert signal.getsignal(signal.SIGTERM) is later
    finally:
        signal.signal(signal.SIGTERM, old)


def test_the_wake_up_descriptor_of_an_event_loop_still_hears_and_is_given_back() -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    os.set_blocking(read, True)
    signal.set_wakeup_fd(write)
    try:
        with EmergencyAbortHandler():
            os.kill(os.getpid(), signal.SIGTERM)
            assert os.read(read, 1) == bytes([signal.SIGTERM])
    finally:
        assert signal.set_wakeup_fd(-1) == write
        os.close(read)
        os.close(write)


def test_an_ignored_signal_stays_ignored() -> None:
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with EmergencyAbortHandler() as handler:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not handler.asked
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, old)


def test_off_the_main_thread_no_signal_is_taken_and_requests_work() -> None:
    found: list[object] = []

    def loop() -> None:
        with EmergencyAbortHandler() as handler:
            found.append(handler.listening)
            handler.request(COMMAND)
            found.append(handler.asked)

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=loop)
    thread.start()
    thread.join(10)
    assert found == [False, True]
    assert signal.getsignal(signal.SIGTERM) == before


def test_only_a_second_ctrl_c_asks_to_skip_and_not_a_repeated_sigterm() -> None:
    with EmergencyAbortHandler() as handler:
        for signum in (signal.SIGTERM, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            os.kill(os.getpid(), signum)
            assert not handler.skip
        os.kill(os.getpid(), signal.SIGINT)
        assert handler.skip


def test_a_signal_while_a_lock_is_held_does_not_hang() -> None:
    lock = threading.Lock()
    with EmergencyAbortHandler() as handler:
        for _ in range(100):
            with lock:
                signal.raise_signal(signal.SIGTERM)
        assert handler.cause == Cause("signal", "SIGTERM", 143)


def test_ctrl_c_does_nothing_in_a_forked_worker_and_sigterm_ends_it_and_neither_reaches_the_parent() -> None:
    done = python(
        """
        import os, signal, time
        from qig_core.safety.abort import EmergencyAbortHandler

        with EmergencyAbortHandler(deadline_s=0.3) as handler:
            ready, tell = os.pipe()
            child = os.fork()
            if child == 0:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)
                assert not handler.asked
                os.write(tell, b"x")
                time.sleep(30)
                os._exit(1)
            os.read(ready, 1)
            os.kill(child, signal.SIGTERM)
            _, status = os.waitpid(child, 0)
            assert os.WTERMSIG(status) == signal.SIGTERM, status
            time.sleep(0.8)
            assert not handler.asked
        """
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_worker_pool_can_be_terminated_under_the_handler() -> None:
    done = python(
        """
        import multiprocessing, time
        from qig_core.safety.abort import EmergencyAbortHandler

        with EmergencyAbortHandler(deadline_s=0.5) as handler:
            with multiprocessing.get_context("fork").Pool(2) as pool:
                assert pool.map(abs, [-1, -2]) == [1, 2]
            time.sleep(0.7)
            assert not handler.asked
        """
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("handler.request(Cause.command('x'))", "a request whose boundary never comes"),
        ("os.kill(os.getpid(), signal.SIGTERM)", "a signal whose boundary never comes"),
    ],
)
def test_the_watchdog_ends_the_process_at_the_deadline(how: str, why: str) -> None:
    done = python(
        f"""
        import os, signal, time
        from qig_core.safety.abort import Cause, EmergencyAbortHandler

        handler = EmergencyAbortHandler(deadline_s=0.3, on_deadline=lambda: print("report", flush=True))
        with handler:
            {how}
            time.sleep(20)
        """
    )
    assert (done.returncode, done.stdout) == (78, "report\n"), why


def test_the_watchdog_hears_a_signal_that_python_code_never_sees() -> None:
    """A call that waits in C and is taken up again after each signal: no Python handler runs before it returns."""
    done = python(
        """
        import ctypes, os, signal, threading, time
        from qig_core.safety.abort import EmergencyAbortHandler

        with EmergencyAbortHandler(deadline_s=0.3, on_deadline=lambda: None) as handler:
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
            libc = ctypes.CDLL(None)
            end = time.monotonic() + 10
            mutex = ctypes.create_string_buffer(64)
            libc.pthread_mutex_lock(mutex)
            libc.pthread_mutex_lock(mutex)  # deadlocks with itself, for ever
        """
    )
    assert done.returncode == 78


def test_a_report_that_hangs_does_not_keep_the_process() -> None:
    began = time.monotonic()
    done = python(
        """
        import time
        from qig_core.safety.abort import Cause, EmergencyAbortHandler

        with EmergencyAbortHandler(deadline_s=0.1, on_deadline=lambda: time.sleep(60)) as handler:
            handler.request(Cause.command("x"))
            time.sleep(60)
        """
    )
    assert done.returncode == 78
    assert time.monotonic() - began < 20


def test_a_signal_that_another_handler_took_over_starts_no_deadline() -> None:
    done = python(
        """
        import os, signal, time
        from qig_core.safety.abort import EmergencyAbortHandler

        with EmergencyAbortHandler(deadline_s=0.2) as handler:
            signal.signal(signal.SIGTERM, lambda signum, frame: None)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.6)
        """
    )
    assert (done.returncode, done.stderr) == (0, "")
