import os

import pytest

from peerloom.runtime.engines.ray import cluster


@pytest.mark.parametrize(("given", "taken"), [(None, "0"), ("5", "5")])
def test_a_cluster_of_ones_own_runs_members_at_normal_priority(
    monkeypatch: pytest.MonkeyPatch, given: str | None, taken: str
) -> None:
    started: list[str] = []
    monkeypatch.setattr(cluster.ray, "init", lambda **_: started.append(os.environ["RAY_worker_niceness"]))
    monkeypatch.setattr(cluster.ray, "shutdown", lambda: None)
    monkeypatch.setenv("RAY_worker_niceness", given or "")
    if given is None:
        monkeypatch.delenv("RAY_worker_niceness")
    try:
        cluster.start_local()
    finally:
        cluster.stop()
    assert started == [taken]


@pytest.mark.parametrize(
    ("given", "environment", "address"),
    [
        (None, None, None),
        (None, "10.0.0.1:6379", "10.0.0.1:6379"),
        ("10.0.0.2:6379", "10.0.0.1:6379", "10.0.0.2:6379"),
        (None, "local", None),
        (None, "", None),
    ],
)
def test_where_the_cluster_is(
    monkeypatch: pytest.MonkeyPatch, given: str | None, environment: str | None, address: str | None
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", environment or "")
    if environment is None:
        monkeypatch.delenv("RAY_ADDRESS")
    assert cluster.cluster_address(given) == address
