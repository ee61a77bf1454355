import json
from pathlib import Path

LOCAL = ("engine=local", "llm=simulated")
PRICES = "prices={simulated: {prompt: 1, completion: 2}}"


def test_a_table(peerloom) -> None:
    ended = peerloom("estimate", "coral", *LOCAL, PRICES, "--sample", 4)
    assert ended.code == 0
    lines = {line.strip()[:13].strip(): line.split() for line in ended.out.splitlines()}
    assert {"prompt tokens", "completion to", "LLM calls", "cost, USD"} <= set(lines)
    assert any(name.startswith("time") for name in lines)
    low, high = float(lines["cost, USD"][-2]), float(lines["cost, USD"][-1])
    assert 0 < low < float(lines["cost, USD"][-3]) < high
    assert "52 rows, 52 tasks, from a pilot of 4: completed 4" in ended.out


def test_json(peerloom, tmp_path: Path) -> None:
    keep = tmp_path / "pilot"
    ended = peerloom(
        "estimate", "coral", *LOCAL, PRICES, "trials=2", "--sample", 3, "--json", "-q", "--run-dir", keep
    )
    assert (ended.code, ended.err) == (0, "")
    shown = json.loads(ended.out)
    assert (shown["recipe"], shown["rows"], shown["tasks"], shown["confidence"]) == ("coral", 52, 104, 0.9)
    assert set(shown["estimate"]) == {"prompt", "completion", "cached", "calls", "usd", "seconds"}
    for figure in shown["estimate"].values():
        assert 0 < figure["low"] <= figure["expected"] <= figure["high"]
    assert (shown["pilot"]["rows"], shown["pilot"]["outcomes"]) == (3, {"completed": 3})
    assert (keep / "summary.json").exists()


def test_nothing_is_left_behind(peerloom, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert peerloom("estimate", "coral", *LOCAL, "--sample", 2, "-q").code == 0
    assert list(tmp_path.iterdir()) == []


def test_a_sample_of_one_says_nothing(peerloom) -> None:
    ended = peerloom("estimate", "coral", *LOCAL, "--sample", 1)
    assert ended.code == 2
    assert "--sample" in ended.err
