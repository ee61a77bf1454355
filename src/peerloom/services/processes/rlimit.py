"""Raise the limit of open files, since each call in flight needs a socket."""

import resource

_SPARE = 256  # open files besides sockets


def allow_open_files(sockets: int) -> None:
    """Raise this process's soft limit of open files to fit `sockets`, up to the hard limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = sockets + _SPARE
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
