import json
from pathlib import Path

from peerloom.recipes import coral

SAMPLE = Path(coral.__file__).with_name("questions.jsonl")


def test_check_prints_the_resolved_configuration(peerloom) -> None:
    ended = peerloom("check", "coral", "llm=simulated", "limit=3", "trials=2")
    assert ended.code == 0
    assert "\n  kind: simulated\n" in ended.out
    assert "coral is ready: 3 rows x 2 trials, roles teacher, extractor, matcher, student" in ended.out


def test_what_check_prints_is_a_run_file(peerloom, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(peerloom("check", "coral", "llm=simulated", "limit=3").out)
    shown = json.loads(peerloom("check", file, "trials=2", "--json").out)
    assert (shown["recipe"], shown["rows"], shown["tasks"]) == ("coral", 3, 6)
    assert shown["config"]["llm"]["kind"] == "simulated"


def test_check_finds_what_is_wrong_and_writes_nothing(peerloom, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    ended = peerloom("check", "coral", "limit=abc", "lmit=1")
    assert ended.code == 2
    assert len(ended.err.splitlines()) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_config_directory_of_ones_own(peerloom, tmp_path: Path) -> None:
    (tmp_path / "llm").mkdir()
    (tmp_path / "llm" / "lab.yaml").write_text("defaults: [simulated]\nlatency: 0.5\n")
    shown = json.loads(peerloom("check", "coral", "llm=lab", "--config-dir", tmp_path, "--json").out)
    assert shown["config"]["llm"]["latency"] == 0.5


def test_the_first_row_of_each_file_must_suit_the_recipe(peerloom, tmp_path: Path) -> None:
    good = json.loads((SAMPLE).read_text().splitlines()[0])
    (tmp_path / "a.json").write_text(json.dumps([good]))
    (tmp_path / "b.csv").write_text("qestion,answer\nwhat,that\n")
    (tmp_path / "c.jsonl").write_text("{\n" + json.dumps(good) + "\n")
    for command in (("check", "coral"), ("run", "coral", "--dry-run")):
        assert peerloom(*command, "llm=simulated", f"source.path={tmp_path}/a.json").code == 0
        ended = peerloom(*command, "llm=simulated", f"source.path=[{tmp_path}/a.json,{tmp_path}/b.csv]")
        assert ended.code == 2
        assert "b.csv:2: the row does not suit the workflow" in ended.err
        assert "Its fields are: qestion, answer" in ended.err
        ended = peerloom(*command, "llm=simulated", f"source.path={tmp_path}/c.jsonl")
        assert ended.code == 2
        assert "c.jsonl:1" in ended.err
