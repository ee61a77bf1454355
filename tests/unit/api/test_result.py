import re
import sys
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import peerloom
from peerloom import ConfigError, FunctionAgent, RunResult, Sequence, Turn

HOSTILE = (
    "<script>alert(1)</script> \" ' </iframe><img src=x onerror=alert(2)> </dd> &quot; \x00\x1b[31m\u202e"
)


def run(run_dir: Path, rows: list[Any], *functions: Any, **options: Any) -> RunResult:
    agents = {f"agent{number}": FunctionAgent(function) for number, function in enumerate(functions)}
    workflow = Sequence(*agents)
    return peerloom.run(
        workflow=workflow, agents=agents, source=rows, llm="simulated", engine="local", run_dir=run_dir,
        progress=False, **options,
    )  # fmt: skip


class Tags(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_in_a_notebook_it_is_a_sandboxed_frame(tmp_path: Path) -> None:
    result = run(tmp_path / "run", [{"q": HOSTILE}, {"q": None}], lambda task: {HOSTILE: task.input["q"]})
    html = result._repr_html_()
    ((tag, attributes),) = Tags(html).tags
    assert tag == "iframe"
    assert attributes["sandbox"] == ""
    page = Tags(attributes["srcdoc"] or "")
    assert {tag for tag, _ in page.tags} == {"meta", "style", "p", "ul", "li", "h2", "dl", "dt", "dd"}
    assert all(set(given) <= {"charset", "http-equiv", "content"} for _, given in page.tags)
    policy = dict(page.tags)["meta"]
    assert policy["http-equiv"] == "Content-Security-Policy"
    assert (policy["content"] or "").startswith("default-src 'none';")
    assert "completed: 2" in page.text
    assert "<script>alert(1)</script>" in page.text
    assert not re.search("[\x00\x1b\u202e]", html + unescape(html))


def test_a_result_whose_rows_are_gone_shows_its_counts(tmp_path: Path) -> None:
    result = run(tmp_path / "run", [{}], lambda task: 1)
    assert "completed: 1" in RunResult(tmp_path / "gone", result.how, result.summary)._repr_html_()


def values(number: int) -> Any:
    return [None, "text", 3, {"a": [1]}][number]


@pytest.fixture
def conflicting(tmp_path: Path) -> RunResult:
    """Rows whose values, results, and inputs are of different types, the first ones null."""
    rows = [{"n": n, "free": values(n)} for n in range(4)]
    return run(tmp_path / "run", rows, lambda task: task.input["free"], lambda task: task.input["n"] / 2)


def test_rows_as_pandas(conflicting: RunResult) -> None:
    frame = conflicting.to_pandas().sort_values("id")
    assert list(frame["id"]) == [f"0-{n}-0" for n in range(4)]
    assert [row["free"] for row in frame["input"]] == [None, '"text"', "3", '{"a":[1]}']
    assert [turns[0]["value"] for turns in frame["turns"]] == [None, '"text"', "3", '{"a":[1]}']
    assert list(frame["result"]) == [0.0, 0.5, 1.0, 1.5]


def test_whole_numbers_stay_exact_beside_nulls(tmp_path: Path) -> None:
    large = 2**60 + 1  # more than a float holds
    result = run(tmp_path / "run", [{"n": None}, {"n": large}], lambda task: task.input["n"])
    assert sorted(result.to_pandas()["result"].dropna()) == [large]


def test_rows_as_a_data_set(conflicting: RunResult) -> None:
    rows = sorted(conflicting.to_dataset(), key=lambda row: row["id"])
    assert [row["id"] for row in rows] == [f"0-{n}-0" for n in range(4)]
    assert [row["input"]["free"] for row in rows] == [None, '"text"', "3", '{"a":[1]}']
    assert [row["result"] for row in rows] == [0.0, 0.5, 1.0, 1.5]


def test_rows_with_and_without_tool_calls(tmp_path: Path) -> None:
    def answer(task: Any) -> Turn:
        function = {"name": "search", "arguments": '{"q":1}'}
        calls = [{"id": "a", "type": "function", "function": function}] if task.input["tool"] else None
        content = None if calls else "no"
        message = {"role": "assistant", "content": content, **({"tool_calls": calls} if calls else {})}
        return Turn(agent="", message=message)

    result = run(tmp_path / "run", [{"tool": None}, {"tool": "search"}], answer)
    for rows in (result.to_pandas().to_dict("records"), list(result.to_dataset())):
        messages = {row["id"]: row["turns"][0]["message"] for row in rows}
        assert messages["0-0-0"]["content"] == "no"
        assert messages["0-0-0"]["tool_calls"] is None
        assert messages["0-1-0"]["tool_calls"][0]["function"]["arguments"] == '{"q":1}'


def test_rejected_rows(tmp_path: Path) -> None:
    def fail(task: Any) -> Any:
        raise KeyError(task.input)

    result = run(tmp_path / "run", [{"n": None}, {"n": "x"}], fail)
    assert list(result.to_pandas(rejected=True)["outcome"]) == ["failed", "failed"]
    assert result.to_dataset(rejected=True).num_rows == 2


def test_a_run_without_a_completed_row_has_no_rows_in_pandas(tmp_path: Path) -> None:
    def fail(task: Any) -> Any:
        raise KeyError(task.input)

    frame = run(tmp_path / "run", [{"n": 1}], fail).to_pandas()
    assert (len(frame), list(frame.columns[:4])) == (0, ["id", "trial", "seed", "outcome"])


@pytest.mark.parametrize(("library", "method"), [("pandas", "to_pandas"), ("datasets", "to_dataset")])
def test_a_library_that_is_not_installed(
    conflicting: RunResult, monkeypatch: pytest.MonkeyPatch, library: str, method: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigError, match=rf"{method} needs {library}.* pip install 'peerloom\[{library}\]'"):
        getattr(conflicting, method)()
