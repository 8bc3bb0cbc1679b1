from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from ultrashape_cli.interrupts import SignalFlag


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)]
)
def test_a_signal_sets_the_flag_and_its_exit_code(number: signal.Signals, code: int) -> None:
    said = []
    with SignalFlag(lambda: said.append(1)) as flag:
        assert not flag
        os.kill(os.getpid(), number)
        assert flag
        assert flag.exit_code == code
    assert said == [1]


def test_a_second_term_changes_nothing() -> None:
    said = []
    with SignalFlag(lambda: said.append(1)) as flag:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
    assert flag.exit_code == 130
    assert said == [1]


def test_the_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in SignalFlag.SIGNALS]
    with SignalFlag(lambda: None):
        pass
    assert [signal.getsignal(number) for number in SignalFlag.SIGNALS] == before


def test_a_message_that_cannot_be_shown_does_not_stop_the_work() -> None:
    def say() -> None:
        raise OSError("the terminal is gone")

    with SignalFlag(say) as flag:
        os.kill(os.getpid(), signal.SIGHUP)
    assert flag


def _run(code: str, *, ignore: bool = False) -> int:
    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN if ignore else signal.SIG_DFL)

    head = (
        "import os, signal; from ultrashape_cli.interrupts import SignalFlag\n"
        "def send(n=signal.SIGINT): os.kill(os.getpid(), n)\n"
    )
    return subprocess.run([sys.executable, "-c", head + code], preexec_fn=prepare).returncode  # noqa: PLW1510


def test_a_second_interrupt_exits_at_once() -> None:
    code = (
        "with SignalFlag(lambda: None):\n    send(); send()\n"
        "    try: pass\n    finally: os._exit(7)\n"
    )
    assert _run(code) == 130


def test_an_interrupt_ignored_by_the_shell_is_heard() -> None:
    code = "with SignalFlag(lambda: None) as flag:\n    send()\nraise SystemExit(flag.exit_code)"
    assert _run(code, ignore=True) == 130


def test_a_hangup_ignored_at_the_start_stays_ignored() -> None:
    # As `nohup ushape train &` starts it.
    code = (
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "with SignalFlag(lambda: None) as flag:\n    send(signal.SIGHUP)\n"
        "raise SystemExit(7 if flag else 0)"
    )
    assert _run(code) == 0


def test_a_signal_that_was_blocked_is_heard_inside() -> None:
    code = (
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}); send(signal.SIGTERM)\n"
        "with SignalFlag(lambda: None) as flag:\n    pass\n"
        "raise SystemExit(flag.exit_code)"
    )
    assert _run(code) == 143
