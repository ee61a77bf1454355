"""The launcher of a keeper: leaves the session it was started from, then becomes the program.

Run by path, as `python -I -S daemon.py LOG PROGRAM [ARG ...]`, so it knows nothing but the standard library
and forks while it has one thread. It prints the process id that the program has, and ends; the program keeps
the standard input, and its output goes to the log.
"""

import os
import sys


def main(argv: list[str]) -> None:
    """Become `argv[1:]` in a process of its own, whose output goes to the file `argv[0]`."""
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
