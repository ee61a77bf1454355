"""The limit of open files grows with the number of connections, as far as it may."""

import resource

import pytest

from peerloom.services.processes.rlimit import allow_open_files


@pytest.mark.parametrize(
    ("limits", "sockets", "after"),
    [
        ((1024, 4096), 2000, [(2256, 4096)]),
        ((1024, 4096), 100_000, [(4096, 4096)]),
        ((1024, resource.RLIM_INFINITY), 9744, [(10_000, resource.RLIM_INFINITY)]),
        ((20_000, 20_000), 5000, []),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), 5000, []),
    ],
)
def test_the_soft_limit_is_raised_if_it_must(monkeypatch, limits, sockets, after) -> None:
    set_to: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda which: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda which, to: set_to.append(to))
    allow_open_files(sockets)
    assert set_to == after
