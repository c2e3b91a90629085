import signal
import subprocess
import sys
import time

import pytest

from environments.leftovers import INTERRUPT_ONCE

COUNTING = """
import signal, sys, time
count = []
signal.signal(signal.SIGINT, lambda *_: count.append(1))
print("ready", flush=True)
end = time.monotonic() + 30
while not count and time.monotonic() < end:
    time.sleep(0.01)
time.sleep(0.5)
sys.exit(100 + len(count))
"""
"""A program that takes a while to end after an interrupt; its exit code says how many it got."""


def test_program_is_interrupted_once_however_often_we_are() -> None:
    command = [*INTERRUPT_ONCE, sys.executable, "-c", COUNTING]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert program.stdout
    assert program.stdout.readline() == "ready\n"
    for _ in range(3):
        program.send_signal(signal.SIGINT)
        time.sleep(0.1)

    assert program.wait(10) == 101


def test_interrupt_that_comes_at_the_start_is_not_lost() -> None:
    for pause in (0.0, 0.001, 0.003, 0.01):
        command = [*INTERRUPT_ONCE, sys.executable, "-c", "import time; time.sleep(30)"]
        program = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
        time.sleep(0.03 + pause)
        program.send_signal(signal.SIGINT)

        assert program.wait(10) in (1, 128 + signal.SIGINT)  # 1: while Python itself started


@pytest.mark.parametrize(("end", "code"), [("exit 0", 0), ("exit 2", 2), ("kill -9 $$", 128 + signal.SIGKILL)])
def test_exit_code_is_the_programs(end: str, code: int) -> None:
    assert subprocess.run([*INTERRUPT_ONCE, "sh", "-c", end], check=False).returncode == code
