"""`datasets.load_dataset` loads a run directory as it is, and its JSON text is what readers return."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import peerloom

datasets = pytest.importorskip("datasets", reason="needs the extra `hub`")

pytestmark = pytest.mark.slow

TEXTS = ("input", "result", "tools")
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"city": "Oslo"}'}}
PARTS = [{"type": "text", "text": "Oslo"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
INPUTS: list[Any] = [
    {"n": None},
    {"n": 1, "text": "a"},
    {"n": "one", "more": [1]},
    {"n": 2.5},
    {"n": [None]},
    {"n": {"a": 1}},
    {"n": "2024-01-02"},
    {"n": 7},
]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    def load(path: Path, name: str | None = None) -> list[dict[str, Any]]:
        loaded = datasets.load_dataset(str(path), name, cache_dir=str(tmp_path / "cache"))
        assert list(loaded) == ["train"]
        return list(loaded["train"])

    return load


class Teacher:
    """Values of any type, null first; tool calls in some rows, and a content of parts."""

    async def act(self, task: peerloom.Task, services: peerloom.Services) -> peerloom.Turn:
        number = INPUTS.index(task.input)
        message: dict[str, Any] = {"role": "assistant", "content": f"number {number}"}
        if number % 3 == 1:
            message |= {"content": None, "tool_calls": [CALL]}
        if number % 3 == 2:
            message["content"] = PARTS
        return peerloom.Turn("", message, task.input["n"])


def student(task: peerloom.Task) -> Any:
    if task.input["n"] == 7:
        raise ValueError("no sevens")
    return [[], "text", {"k": []}, 0][INPUTS.index(task.input) % 4]


def ran(folder: Path, source: list[Any] = INPUTS, *, teacher: Any = None, **more: Any) -> Any:
    agents = {"teacher": teacher or Teacher(), "student": peerloom.FunctionAgent(student)}
    workflow = peerloom.Sequence("teacher", "student")
    return peerloom.run(
        workflow=workflow,
        agents=agents,
        source=source,
        run_dir=folder,
        engine="local",
        progress=False,
        **more,
    )


def same(loaded: dict[str, Any], row: dict[str, Any]) -> bool:
    """Whether a loaded row has the values of one that was read."""
    plain = ("id", "trial", "seed", "outcome", "reason", "timing", "detail")
    assert {name: loaded[name] for name in plain} == {name: row.get(name) for name in plain}
    for name in TEXTS:
        assert (json.loads(loaded[name]) if loaded[name] is not None else None) == row.get(name)
    assert json.loads(loaded["provenance"]) == row["provenance"]
    for turn, made in zip(loaded["turns"], row["turns"], strict=True):
        for name in ("message", "value"):
            assert (json.loads(turn[name]) if turn[name] is not None else None) == made.get(name)
        assert (turn["agent"], turn["started"]) == (made["agent"], made["started"])
    for message, said in zip(loaded["messages"], row["messages"], strict=True):
        extra = json.loads(message.pop("extra") or "{}")
        found = {name: value for name, value in message.items() if value is not None} | extra
        assert found == {name: value for name, value in said.items() if value is not None}
    return True


def test_rows_of_conflicting_types_are_loaded(tmp_path: Path, load: Callable[..., Any]) -> None:
    result = ran(tmp_path / "run")
    rows = {row["id"]: row for row in result.rows(rejected=True)}
    completed, rejected = load(tmp_path / "run"), load(tmp_path / "run", "rejected")
    assert (len(completed), len(rejected)) == (7, 1)
    assert all(same(loaded, rows[loaded["id"]]) for loaded in (*completed, *rejected))
    assert rejected[0]["error"]["type"] == "ValueError"


def test_a_later_session_is_loaded_though_an_earlier_one_is_cached(
    tmp_path: Path, load: Callable[..., Any]
) -> None:
    for limit in (2, 5):
        ran(tmp_path / "run", limit=limit)
        assert len(load(tmp_path / "run")) == limit
    assert len(list((tmp_path / "run" / "data").iterdir())) == 2


def test_a_run_that_goes_on_is_loaded(tmp_path: Path, load: Callable[..., Any]) -> None:
    class LoadsAtTheEnd(Teacher):
        async def act(self, task: peerloom.Task, services: peerloom.Services) -> peerloom.Turn:
            if task.input == INPUTS[-1]:
                found.append(len(load(tmp_path / "run")))
            return await super().act(task, services)

    found: list[int] = []
    ran(tmp_path / "run", teacher=LoadsAtTheEnd(), in_flight=1)
    assert found == [7]


def test_a_run_without_completed_rows_says_so(tmp_path: Path, load: Callable[..., Any]) -> None:
    ran(tmp_path / "run", [{"n": 7}])
    with pytest.raises((ValueError, FileNotFoundError), match=r"no data|data files"):
        load(tmp_path / "run")
    assert [row["outcome"] for row in load(tmp_path / "run", "rejected")] == ["failed"]
