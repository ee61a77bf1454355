"""The card of a run directory: its metadata, figures and samples; and no file of the user's is replaced."""

import re
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from peerloom.errors import RunDirError
from peerloom.sink.rundir.card import MARK, write_card
from peerloom.sink.rundir.directory import RunDir
from peerloom.sink.rundir.state import Fingerprint, State
from peerloom.stored import to_stored


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    with RunDir.claim(tmp_path / "run") as claimed:
        claimed.write_state(
            State(
                session=1,
                peerloom="0.1.0",
                model="m",
                programs=[(1, "aa11"), (2, "bb22")],
                fingerprint=Fingerprint(),
            )
        )
        claimed.write(
            "run.yaml", "recipe: {name: coral}\nsource: {license: cc-by-4.0}\nseed: 3\nllm: {model: a|b}\n"
        )
        claimed.write("summary.json", {"outcomes": {"completed": 1200}, "llm_calls": 7, "usd": 0.5})
    return tmp_path / "run"


def put(run_dir: Path, folder: str, **row: Any) -> None:
    line = orjson.dumps(to_stored({"messages": [], "input": None, "result": None, **row}))
    (run_dir / folder / "part-000-0001-0000.jsonl").write_bytes(line + b"\n")


def card(run_dir: Path) -> tuple[dict[str, Any], str]:
    write_card(run_dir)
    head, body = (run_dir / "README.md").read_text().removeprefix("---\n").split("\n---\n", 1)
    return yaml.safe_load(head), body


def test_it_says_how_the_rows_were_made(run_dir: Path) -> None:
    _, body = card(run_dir)
    table = dict(re.findall(r"^\| (.+?) \| (.+) \|$", body, re.MULTILINE))
    assert table == {
        "recipe": "coral",
        "models": r"m, a\|b",
        "license of the input": "cc-by-4.0",
        "programs": "aa11, bb22",
        "seed": "3",
        "Peerloom": "0.1.0",
        "outcomes": "completed 1,200",
        "calls": "7",
        "cost in dollars": "0.5",
    }
    assert "Samples" not in body


@pytest.mark.parametrize("folder", ["data", "rejected"])
def test_a_configuration_with_rows_is_the_first(run_dir: Path, folder: str) -> None:
    put(run_dir, folder)
    head, _ = card(run_dir)
    first = head["configs"][0]
    assert first["data_files"] == [{"split": "train", "path": f"{folder}/*.jsonl"}]
    assert first["config_name"] == {"data": "default", "rejected": "rejected"}[folder]
    assert head["dataset_info"][0]["dataset_size"] > 0


def test_a_sample_is_short_and_cannot_leave_its_block(run_dir: Path) -> None:
    hostile = "\n````\n# Injected\n---\n<script>" + "`" * 7 + "x" * 5000
    put(run_dir, "data", messages=[{"role": "user", "content": hostile}] * 50, result={hostile: hostile})
    head, body = card(run_dir)
    assert len(body) < 10_000
    assert head["tags"] == ["synthetic", "peerloom"]
    (fence,) = re.findall(r"^(`+)json$", body, re.MULTILINE)
    assert fence not in body.split(f"{fence}json")[1].removesuffix(f"{fence}\n").rsplit(fence, 1)[0]
    assert not re.search(r"^# Injected", body, re.MULTILINE)


def test_a_file_of_the_users_is_left_alone_and_not_cleared(run_dir: Path) -> None:
    (run_dir / "README.md").write_text("mine")
    write_card(run_dir)
    assert (run_dir / "README.md").read_text() == "mine"
    with pytest.raises(RunDirError, match=r"holds README\.md, which is not Peerloom's"):
        RunDir.claim(run_dir, fresh=True)


def test_our_own_is_replaced_and_cleared(run_dir: Path) -> None:
    for size in (1, 2):
        put(run_dir, "data", result="x" * size)
        head, _ = card(run_dir)
        assert (
            head["dataset_info"][0]["dataset_size"]
            == (run_dir / "data/part-000-0001-0000.jsonl").stat().st_size
        )
    assert (run_dir / "README.md").read_text().startswith(f"---\n{MARK}\n")
    RunDir.claim(run_dir, fresh=True).release()
    assert not (run_dir / "README.md").exists()
