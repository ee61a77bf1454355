"""Launch a program detached from the current session.

Run by path, as `python -I -S daemon.py LOG PROGRAM [ARG ...]`: only the standard library is available, and
the process forks while it has one thread. It prints the program's process id and exits. The program inherits
the standard input, and its output goes to the log.
"""

import os
import sys


def main(argv: list[str]) -> None:
    """Run `argv[1:]` in a new session, with its output in the file `argv[0]`."""
    log, program = argv[0], argv[1:]
    pid = os.fork()
    if pid:
        print(pid, flush=True)
        os._exit(0)
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    try:
        os.execv(program[0], program)
    except OSError as error:
        sys.exit(f"cannot start {program[0]}: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
