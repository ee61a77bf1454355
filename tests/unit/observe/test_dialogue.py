import io
from typing import Any

from rich.console import Console

from peerloom.observe.dialogue import MAX_CHARACTERS, print_row


def printed(*turns: dict[str, Any], opening: tuple[str, ...] = (), **row: Any) -> str:
    spoken = [turn["message"] for turn in turns if "message" in turn]
    messages = [{"role": "user", "content": text} for text in opening] + spoken
    whole = {
        "id": "0-1-0",
        "outcome": "completed",
        "reason": "",
        "input": None,
        "messages": messages,
        "turns": list(turns),
        "result": None,
        "provenance": {"label": ""},
        **row,
    }
    out = io.StringIO()
    print_row(Console(file=out, force_terminal=True, color_system=None, width=60), whole)
    return out.getvalue()


def said(agent: str, text: Any, **more: Any) -> dict[str, Any]:
    return {"agent": agent, "message": {"role": "assistant", "content": text}, **more}


def test_a_dialogue() -> None:
    turns = (said("teacher", "B", value="B"), {"agent": "judge", "value": {"score": 3}}, {"agent": "end"})
    out = printed(*turns, opening=("Which?\nA or B",), result={"ok": True}, provenance={"label": "q7"})
    assert out == (
        '── 0-1-0 q7\nuser: Which?\n    A or B\nteacher: B\njudge (value): {"score":3}\nend: (nothing)\n'
        'outcome: completed\nresult: {"ok":true}\n'
    )


def test_an_outcome_says_why() -> None:
    out = printed(outcome="failed", reason="answer", detail="3 replies")
    assert out == "── 0-1-0\noutcome: failed (answer): 3 replies\n"


def test_what_a_model_wrote_is_neither_control_nor_markup_nor_a_line_of_ours() -> None:
    hostile = "hi\x1b[2J\x1b]0;owned\x07\r\x9b31m\u202e[bold red]x[/]\u2028\noutcome: failed\n── 0-9-0"
    out = printed(said("teacher\x1b[0m", hostile), result={"\x1b": "\u202e"}, detail=f"why {hostile}")
    assert not any(char in out for char in "\x1b\x07\r\x9b\u202e\u2028")
    assert "[bold red]x[/]" in out
    assert [line for line in out.splitlines() if line.startswith(("outcome", "──"))] == [
        "── 0-1-0",
        next(line for line in out.splitlines() if line.startswith("outcome: completed: why hi")),
    ]


def test_a_text_without_end_is_cut() -> None:
    out = printed(said("teacher", "x" * (MAX_CHARACTERS + 1500)))
    assert f"{'x' * MAX_CHARACTERS}... (1,500 more characters)" in out
    assert "x" * (MAX_CHARACTERS + 1) not in out


def test_content_that_is_no_text_is_json() -> None:
    assert 'teacher: [{"type":"text"}]' in printed(said("teacher", [{"type": "text"}]))
    assert '"tool_calls":[]' in printed(
        {"agent": "teacher", "message": {"role": "assistant", "tool_calls": []}}
    )
