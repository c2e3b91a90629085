"""Runs the program of its command line, and passes only the first of all interrupts on to it.

Terraform drops everything at the second interrupt. A user presses Ctrl-C again; and a runner of GitHub Actions that
cancels a job interrupts the command, which interrupts Terraform, and kills the command ten seconds later, at which the
system interrupts Terraform once more (leftovers.py).

It is a process of its own between the two, and imports little, because every Terraform waits for it.
https://github.com/actions/runner/blob/main/src/Runner.Sdk/ProcessInvoker.cs
"""

import os
import signal
import sys

OF_A_SIGNAL = 128
"""What a shell adds to the number of the signal that ended a process."""


def main(command: list[str]) -> int:
    """Run a program to its end; gives its exit code."""
    awaited = {signal.SIGINT, signal.SIGCHLD}
    signal.signal(signal.SIGCHLD, lambda *_: None)  # what is ignored is not waited for either
    signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    program = os.posix_spawnp(
        command[0], command, os.environ, setsigmask=(), setsigdef=(signal.SIGINT, signal.SIGCHLD, signal.SIGPIPE)
    )
    interrupted = False
    while True:
        if signal.sigwait(awaited) == signal.SIGINT:
            if not interrupted:
                os.kill(program, signal.SIGINT)
            interrupted = True
            continue
        ended, status = os.waitpid(program, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else OF_A_SIGNAL - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
