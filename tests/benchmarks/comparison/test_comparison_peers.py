from pathlib import Path

import pytest

from benchmarks.comparison import peers
from benchmarks.comparison.install import install
from benchmarks.comparison.peers import ADAPTERS, PEERS, environment, known, program, python
from benchmarks.workloads import COMPARED
from peerloom.errors import ConfigError


@pytest.mark.parametrize("name", PEERS)
def test_each_peer_has_an_adapter_and_pins_its_environment(name: str) -> None:
    peer = PEERS[name]
    assert (ADAPTERS / name / "run.py").is_file()
    lines = (ADAPTERS / peer.home / "requirements.txt").read_text().splitlines()
    assert lines
    assert all("==" in line and "://" not in line for line in lines if line and not line.startswith("#"))


@pytest.mark.parametrize("name", PEERS)
def test_each_peer_does_a_work_or_says_why_not(name: str) -> None:
    peer = PEERS[name]
    for work in COMPARED:
        assert (work in peer.works) is not bool(peer.reason(work))


@pytest.mark.parametrize("name", COMPARED)
def test_rows_of_a_workload_are_the_same_every_time(name: str) -> None:
    workload = COMPARED[name]
    rows = list(workload.rows(50))
    assert rows == list(workload.rows(50))
    assert len(rows) == 50
    assert (workload.calls(rows) > 0) is (name != "hops")


def test_most_documents_stop_at_the_filter_and_some_replies_are_very_long() -> None:
    rows = list(COMPARED["nr"].rows(2_000))
    assert 0.25 < sum(row["keep"] for row in rows) / len(rows) < 0.35
    tokens = sorted(row["tokens"][0] for row in rows)
    assert tokens[-1] > 20 * tokens[len(tokens) // 2]


def test_peers_share_an_environment_where_they_need_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PEERLOOM_BENCH_CACHE", str(tmp_path))
    assert environment(known("threads")) == environment(known("openai")) == tmp_path / "openai"
    assert program(known("threads")).argv[0] == str(python(known("openai")))
    assert "python -m benchmarks install openai" in peers.absent(known("threads"))


def test_an_unknown_peer_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="no peer 'aiohtp'; there are matrix, aiohttp"):
        install(["aiohtp"], lambda text: None)
