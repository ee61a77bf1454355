"""The launcher of child processes: asks to die with the parent, then becomes the program.

Run by path, as `python -I -S children.py PARENT_PID PROGRAM [ARG ...]`, so it knows nothing but the
standard library. Asking here, in the child, avoids `preexec_fn`, which is unsafe in a process with
threads; the request survives the exec.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(argv: list[str]) -> None:
    """Become `argv[1:]`, to be killed when the process `argv[0]` dies."""
    parent, program = int(argv[0]), argv[1:]
    if ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL)) != 0:
        sys.exit("the kernel refused PR_SET_PDEATHSIG, so this child could outlive its parent")
    if os.getppid() != parent:  # it died before the request: the signal will never come
        sys.exit("the parent is gone")
    try:
        os.execv(program[0], program)
    except OSError as error:
        sys.exit(f"cannot start {program[0]}: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
