import json
import os
from pathlib import Path
from typing import Any

import pytest

from peerloom.services.llm.llamacpp.weights import missing_bytes
from peerloom.sink.rundir.directory import RunDir

SIMULATED = ("llm=simulated", "limit=3")


def snapshot(directory: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(directory.rglob("*"))}


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PEERLOOM_CACHE", str(tmp_path / "cache"))


def test_it_prints_the_configuration_and_the_plan_and_writes_nothing(peerloom, tmp_path: Path) -> None:
    ended = peerloom("run", "coral", *SIMULATED, "trials=2", "peers=3", "in_flight=5", "--dry-run")
    assert ended.code == 0
    assert "\n  kind: simulated\n" in ended.out
    assert "# tasks: 6 (3 rows x 2 trials), 5 in flight\n# engine: ray, 3 peers, packed\n" in ended.out
    assert "# output: runs/coral-" in ended.out
    assert list(tmp_path.iterdir()) == []


def test_what_it_prints_is_a_run_file(peerloom, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(peerloom("run", "coral", *SIMULATED, "--dry-run").out)
    shown = json.loads(peerloom("run", tmp_path / "mine.yaml", "--dry-run", "--json").out)
    assert (shown["rows"], shown["config"]["llm"]["kind"]) == (3, "simulated")


def test_no_model_is_asked_or_fetched(peerloom, tmp_path: Path) -> None:
    given = ("llm=openai", "llm.base_url=http://127.0.0.1:9/v1", "llm.model=m")
    shown = json.loads(peerloom("run", "coral", *given, "--dry-run", "--json").out)
    assert shown["model"] == {"kind": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1"}
    embedded = json.loads(peerloom("run", "coral", "--dry-run", "--json").out)["model"]
    assert embedded["missing_bytes"] == missing_bytes("smollm2-135m") > 10_000_000
    assert "MB to be downloaded first" in peerloom("run", "coral", "--dry-run").out
    beside = ("llms.small.kind=llamacpp", "roles.teacher.llm=small")
    more = json.loads(peerloom("run", "coral", *given, *beside, "--dry-run", "--json").out)["model"]
    assert more["missing_bytes"] == embedded["missing_bytes"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lmit=20"], "lmit=20: there is no key 'lmit'"),
        (["source.path=none.jsonl"], "none.jsonl"),
        (["source.path=empty.jsonl"], "the source has no rows"),
        (["partitions=9", "in_flight=2"], "partitions=9 is more than in_flight=2"),
        (["llm=llamacpp", "llm.model=none.gguf"], "cannot read the model none.gguf"),
        (["--run-dir", "empty.jsonl"], "empty.jsonl cannot be used for a run: Not a directory"),
        (["--run-dir", "empty.jsonl/below"], "empty.jsonl cannot be used for a run: Not a directory"),
        (["--run-dir", "full"], "full is not empty and contains no run of Peerloom"),
    ],
)
def test_what_the_run_would_refuse(peerloom, tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    before = snapshot(tmp_path)
    ended = peerloom("run", "coral", "llm=simulated", *arguments, "--dry-run")
    assert ended.code == 2
    assert message in ended.err
    assert snapshot(tmp_path) == before


def test_a_directory_that_holds_a_run(peerloom, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    given: tuple[Any, ...] = ("run", "coral", *SIMULATED, "engine=local", "--run-dir", run_dir)
    assert peerloom(*given, "-q").code == 0
    before = snapshot(tmp_path)
    assert "run, finished\n" in peerloom(*given, "--dry-run").out
    assert "run, session 2\n" in peerloom(*given, "limit=5", "--dry-run").out
    refused = peerloom(*given, "seed=1", "--dry-run")
    assert (refused.code, "seed: was 0, now 1" in refused.err) == (2, True)
    assert "run, session 2\n" in peerloom(*given, "seed=1", "--fresh", "--dry-run").out
    (run_dir / "thesis.tex").touch()
    assert "which is not Peerloom's" in peerloom(*given, "--fresh", "--dry-run").err
    (run_dir / "thesis.tex").unlink()
    assert snapshot(tmp_path) == before


def test_a_directory_that_is_in_use(peerloom, tmp_path: Path) -> None:
    claimed = RunDir.claim(tmp_path / "run")
    try:
        ended = peerloom("run", "coral", *SIMULATED, "--run-dir", tmp_path / "run", "--dry-run")
    finally:
        claimed.release()
    assert ended.code == 2
    assert f"is in use by another run (process {os.getpid()})" in ended.err
