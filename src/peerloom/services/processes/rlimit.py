"""Room for many sockets in one process: a thousand calls in flight are a thousand open files."""

import resource

_SPARE = 256  # files a process has open besides its sockets


def allow_open_files(sockets: int) -> None:
    """Raise this process's soft limit of open files so that `sockets` fit, as far as the hard one allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = sockets + _SPARE
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
