"""Where the driver is reached: by all hosts of a cluster that was there before, else by this one only."""

import subprocess
from typing import Any

import pytest

from peerloom.runtime.engines.local import LocalEngine
from peerloom.runtime.engines.ray import cluster


def test_a_local_run_is_reached_on_this_host_only() -> None:
    assert LocalEngine().address() == "127.0.0.1"


def test_a_cluster_of_our_own_has_no_other_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    reaper: Any = object()
    monkeypatch.setattr(cluster, "_reapers", [reaper])
    monkeypatch.setattr(cluster.ray.util, "get_node_ip_address", lambda: "10.0.0.7")
    assert cluster.node_address() == "127.0.0.1"


def test_in_a_cluster_that_was_there_before_the_node_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    none: list[subprocess.Popen[bytes]] = []
    monkeypatch.setattr(cluster, "_reapers", none)
    monkeypatch.setattr(cluster.ray.util, "get_node_ip_address", lambda: "10.0.0.7")
    assert cluster.node_address() == "10.0.0.7"
