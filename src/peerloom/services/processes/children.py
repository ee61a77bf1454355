"""Supervise a program, and end its whole process tree when the program or the parent ends.

Run by path, as `python -I -S children.py CONTROL_FD PROGRAM [ARG ...]`: only the standard library is
available, and the process forks while it has one thread. CONTROL_FD is a socket whose other end the parent
holds.

An engine such as vLLM is a tree of processes, and the kernel's parent-death signal reaches only the direct
child. So two supervisors run between the parent and the program. Both are subreapers: a process that leaves
its group or session, or loses its parent, becomes their child. When the program has ended, they end its
remaining descendants, and then the outer supervisor exits with the program's exit status. They do the same
when the socket closes, which signals the parent's death. If one supervisor is killed, the other one ends the
remaining processes.

The inner supervisor writes the program's process id and a newline to the socket. The parent may send `T` to
send SIGTERM to the program's process group, and `K` to kill everything at once.
"""

import ctypes
import os
import resource
import select
import signal
import socket
import sys
import time

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PARENT_DIED = signal.SIGUSR2
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_GRACE_SECONDS = 1.0  # between SIGTERM and SIGKILL, for processes that outlive the program
_POLL_SECONDS = 0.02


def main(argv: list[str]) -> None:
    """Run `argv[1:]` under two supervisors, of which this process becomes the outer one."""
    control = socket.socket(fileno=int(argv[0]))
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    outer = os.getpid()
    inner = os.fork()
    if inner == 0:
        _Inner(outer, control, argv[1:]).run()
    control.close()
    for number in _FORWARDED:
        signal.signal(number, lambda signum, _: _forward(inner, signum))
    status = _wait_for(inner)
    for number in _FORWARDED:
        signal.signal(number, signal.SIG_IGN)  # the remaining processes are ended now in any case
    _end_descendants(_GRACE_SECONDS)
    _exit_like(status)


def _forward(inner: int, number: int) -> None:
    try:
        os.kill(inner, number)
    except ProcessLookupError:
        pass


class _Inner:
    """The supervisor that is the program's parent."""

    def __init__(self, outer: int, control: socket.socket, program: list[str]) -> None:
        self._control = control
        self._orphaned = False
        self._wakeup, wakeup_writer = os.pipe()
        os.set_blocking(self._wakeup, False)
        os.set_blocking(wakeup_writer, False)
        signal.set_wakeup_fd(wakeup_writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _wake)
        signal.signal(_PARENT_DIED, self._on_parent_death)
        signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)  # until there is a program to forward them to
        for number in _FORWARDED:
            signal.signal(number, lambda signum, _: self._signal(signum))
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        _request_parent_death_signal(outer, _PARENT_DIED)
        self._program = _start(program)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)

    def run(self) -> None:
        """Wait until the program ends or must end, then end its remaining descendants."""
        try:
            self._control.sendall(b"%d\n" % self._program)
        except OSError:
            self._orphaned = True
        status, grace = None, _GRACE_SECONDS
        events = select.poll()  # select() refuses descriptors above 1023
        events.register(self._control, select.POLLIN)
        events.register(self._wakeup, select.POLLIN)
        while status is None and not self._orphaned:
            for descriptor, _ in events.poll():
                if descriptor == self._wakeup:
                    self._drain()
                else:
                    grace = self._handle_commands()
            status = _reap(self._program)
        _end_descendants(grace)
        # If the program was still running, it was killed with its descendants.
        _exit_like(status if status is not None else int(signal.SIGKILL))

    def _handle_commands(self) -> float:
        """Handle the parent's commands, and return the grace period for ending the program."""
        try:
            commands = self._control.recv(64)
        except OSError:
            commands = b""
        if b"T" in commands:
            self._signal(signal.SIGTERM)
        if not commands or b"K" in commands:
            self._orphaned = True
        return 0.0 if b"K" in commands else _GRACE_SECONDS

    def _drain(self) -> None:
        try:
            os.read(self._wakeup, 4096)
        except BlockingIOError:
            pass

    def _on_parent_death(self, *_: object) -> None:
        self._orphaned = True

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self._program, number)
        except ProcessLookupError:
            pass


def _wake(*_: object) -> None:
    """Do nothing: Python writes a byte to the wakeup descriptor for each handled signal."""


def _start(program: list[str]) -> int:
    """Start a program in its own process group, and return its process id."""
    supervisor = os.getpid()
    pid = os.fork()
    if pid:
        try:
            os.setpgid(pid, pid)  # here too, since a signal may arrive before the child has created its group
        except OSError:
            pass
        return pid
    os.setpgid(0, 0)
    _request_parent_death_signal(supervisor, signal.SIGKILL)
    for number in (*_FORWARDED, signal.SIGCHLD, _PARENT_DIED):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
    try:
        os.execv(program[0], program)
    except OSError as error:
        print(f"cannot start {program[0]}: {error.strerror}", file=sys.stderr, flush=True)
        os._exit(1)


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None).prctl(option, value, 0, 0, 0) != 0:
        sys.exit(f"the kernel refused prctl({option}), so this child could outlive its parent")


def _request_parent_death_signal(parent: int, number: signal.Signals) -> None:
    """Request a signal from the kernel for the parent's death, even if the parent is dead already."""
    _prctl(_PR_SET_PDEATHSIG, int(number))
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def _reap(program: int) -> int | None:
    """Reap all ended children, and return the wait status of the program if it is among them."""
    status = None
    while True:
        try:
            pid, ended = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if pid == 0:
            return status
        if pid == program:
            status = ended


def _wait_for(child: int) -> int:
    """Wait for a child, reaping others meanwhile, and return its wait status."""
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == child:
            return status


def _end_descendants(grace: float) -> None:
    """End all descendants: SIGTERM, and SIGKILL after `grace` seconds. Return when none is left.

    The grace period lets helpers such as Python's resource tracker, which frees shared memory, end by
    themselves once the other processes have ended.
    """
    signalled: set[int] = set()
    deadline = time.monotonic() + grace
    while remaining := _descendants():
        late = time.monotonic() >= deadline
        for pid in remaining if late else remaining - signalled:
            try:
                os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
            except ProcessLookupError:
                pass
        signalled |= remaining
        time.sleep(_POLL_SECONDS)
        _reap(0)


def _descendants() -> set[int]:
    """Return the processes below this one that have not ended."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                state, parent = file.read().rpartition(b")")[2].split()[:2]
        except (OSError, ValueError):
            continue
        if state not in (b"Z", b"X"):
            children.setdefault(int(parent), []).append(int(name))
    found: set[int] = set()
    pending = [os.getpid()]
    while pending:
        below = children.get(pending.pop(), [])
        found.update(below)
        pending += below
    return found


def _exit_like(status: int) -> None:
    """Exit with the exit code, or by the signal, of a wait status."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # one core dump is enough
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


if __name__ == "__main__":
    main(sys.argv[1:])
