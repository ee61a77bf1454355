"""The records of the training formats, and what they leave out."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment
from training_rows import CALL, TOOL, all_rows, commit, dialogue, read_lines, tool_dialogue

from peerloom.errors import ConfigError
from peerloom.sink.export.writer import Exported, Selection, export

SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, "
    "trained by Hugging Face<|im_end|>\n' }}"
    "{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""The chat template in the file of SmolLM2."""
WITH_TOOLS = (
    "{% if tools %}{{ tools | tojson }}{% endif %}"
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}"
    "{% for call in message.tool_calls or [] %}{{ call.function | tojson }}{% endfor %}{% endfor %}"
)


def written(
    run_dir: Path, tmp_path: Path, rows: list[dict[str, Any]], format: str, **options: Any
) -> tuple[Exported, list[dict[str, Any]]]:
    """The exported file of these rows, and its records."""
    commit(run_dir, rows)
    (exported,) = export(run_dir, tmp_path / "rows", format=format, options=options)
    return exported, read_lines(exported.path)


def test_arguments_are_objects_for_templates_and_text_for_openai(run_dir: Path, tmp_path: Path) -> None:
    _, (sft,) = written(run_dir, tmp_path, [tool_dialogue(0, 0, 1)], "sft")
    assert sft["messages"][2]["tool_calls"][0]["function"]["arguments"] == {"a": 2, "b": [1]}
    assert sft["messages"][2]["content"] == ""
    assert sft["tools"] == [TOOL]
    id = sft["messages"][2]["tool_calls"][0]["id"]
    assert id == sft["messages"][3]["tool_call_id"] and re.fullmatch("[0-9a-z]{9}", id)
    export(run_dir, tmp_path / "o", format="openai", options={"train": "last"})
    (openai,) = read_lines(tmp_path / "o")
    assert openai["messages"][2] == {"role": "assistant", "content": None, "tool_calls": [CALL], "weight": 0}
    assert "weight" not in openai["messages"][-1]
    export(run_dir, tmp_path / "s", format="sharegpt")
    (sharegpt,) = read_lines(tmp_path / "s")
    assert [each["from"] for each in sharegpt["conversations"]] == [
        "human",
        "function_call",
        "observation",
        "gpt",
    ]
    assert json.loads(sharegpt["conversations"][1]["value"]) == {
        "name": "add",
        "arguments": {"a": 2, "b": [1]},
    }
    assert (sharegpt["system"], json.loads(sharegpt["tools"])) == ("Be kind.", [TOOL])


def test_a_tool_has_all_fields_for_templates(run_dir: Path, tmp_path: Path) -> None:
    row = tool_dialogue(0, 0, 1) | {"tools": [{"type": "function", "function": {"name": "add"}}]}
    _, (sft,) = written(run_dir, tmp_path, [row], "sft")
    function = {"name": "add", "description": "", "parameters": {"type": "object", "properties": {}}}
    assert sft["tools"] == [{"type": "function", "function": function}]


@pytest.mark.parametrize("template", [SMOLLM2, WITH_TOOLS])
@pytest.mark.parametrize("assistant", [None, "judge"])
def test_chat_templates_render_every_row(
    run_dir: Path, tmp_path: Path, template: str, assistant: str | None
) -> None:
    _, records = written(
        run_dir, tmp_path, all_rows(), "sft", **({"assistant": assistant} if assistant else {})
    )
    assert len(records) == 6
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    for record in records:
        text = environment.from_string(template).render(**record, add_generation_prompt=False)
        assert record["messages"][-1]["content"] in text
        assert '\\"a\\"' not in text
        assert ('"arguments": {"a": 2, "b": [1]}' in text) == ("tools" in record and template == WITH_TOOLS)


def test_a_prompt_and_its_completion(run_dir: Path, tmp_path: Path) -> None:
    _, (record,) = written(run_dir, tmp_path, [dialogue(0, 0, 1)], "sft", style="prompt-completion")
    assert [each["role"] for each in record["prompt"]] == ["system", "user"]
    assert record["completion"] == [{"role": "assistant", "content": "Answer 0-0"}]
    assert "messages" not in record


def test_the_assistant_is_a_role_of_the_row(run_dir: Path, tmp_path: Path) -> None:
    row = dialogue(0, 0, 4)
    _, (judge,) = written(run_dir, tmp_path, [row], "sft", assistant="judge")
    assert judge["messages"] == [
        {"role": "user", "content": "Rate: Answer 0-0"},
        {"role": "assistant", "content": "4"},
    ]
    export(run_dir, tmp_path / "w", format="sft", options={"assistant": "writer"})
    assert read_lines(tmp_path / "w") == [{"messages": row["messages"]}]


def test_several_assistants_have_a_conversation_each(run_dir: Path, tmp_path: Path) -> None:
    pair = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    row = dialogue(0, 0, 4, conversations={"writer": pair, "editor": pair[:1]})
    _, (record,) = written(run_dir, tmp_path, [row], "sft", assistant="writer")
    assert record == {"messages": pair}


@pytest.mark.parametrize(
    ("rows", "format", "options", "message"),
    [
        (
            [dialogue(0, 0, 1)],
            "sft",
            {"assistant": "writr"},
            "assistant=writr: no row has a turn of that role. Did you mean 'writer'",
        ),
        ([dialogue(0, 0, 1, messages=[])], "sft", {}, r"nothing is left for it: no assistant message \(1\)"),
        (
            [dialogue(0, 0, 1)],
            "dpo",
            {},
            r"the only answer to its input row \(run with trials=2 or more\) \(1\)",
        ),
        ([dialogue(0, 0, 1)], "grpo", {}, r"the only answer to its input row"),
        ([dialogue(0, t, 3) for t in (0, 1)], "dpo", {}, r"answers with equal scores \(1\)"),
        ([dialogue(0, t, t) for t in (0, 1)], "dpo", {"min_gap": 2}, "differ by less than min_gap"),
        (
            [dialogue(0, t, t) for t in (0, 1)],
            "dpo",
            {"score": "result.mark"},
            r"no number at result.mark \(2\)",
        ),
        ([dialogue(0, t, t) for t in (0, 1)], "dpo", {"score": "mark"}, "`mark` is no field of a row"),
        ([dialogue(0, 0, 1)], "sft", {"stile": "messages"}, "sft has no option stile. Did you mean 'style'"),
        ([dialogue(0, 0, 1)], "sft", {"style": "prose"}, "an option of the format sft is wrong: .*'prose'"),
        ([dialogue(0, 0, 1)], "jsonl", {"style": "prose"}, "jsonl has no option style. It has no options"),
    ],
)
def test_what_cannot_be_exported_is_explained(
    run_dir: Path, tmp_path: Path, rows: list[Any], format: str, options: dict[str, Any], message: str
) -> None:
    commit(run_dir, rows)
    with pytest.raises(ConfigError, match=message):
        export(run_dir, tmp_path / "rows", format=format, options=options)
    assert not (tmp_path / "rows").exists()


def test_a_pair_is_the_best_and_the_worst_answer(run_dir: Path, tmp_path: Path) -> None:
    rows = [dialogue(0, trial, score) for trial, score in enumerate([2, 5, 1, 5])]
    rows[1]["messages"][-1]["content"] = "long " * 20
    exported, (pair,) = written(run_dir, tmp_path, [*rows, dialogue(1, 0, 1)], "dpo")
    assert pair == {
        "prompt": rows[0]["messages"][:2],
        "chosen": rows[3]["messages"][2:],
        "rejected": rows[2]["messages"][2:],
    }
    assert exported.skipped == {"the only answer to its input row (run with trials=2 or more)": 1}
    (every,) = export(run_dir, tmp_path / "all", format="dpo", options={"pairs": "all"})
    assert every.rows == 5
    limited = {"pairs": "all", "max_length_ratio": 2}
    (short,) = export(run_dir, tmp_path / "short", format="dpo", options=limited)
    assert short.rows == 3


def test_dialogues_that_part_late_share_what_comes_before(run_dir: Path, tmp_path: Path) -> None:
    rows = [tool_dialogue(0, trial, trial) for trial in range(2)]
    _, (pair,) = written(run_dir, tmp_path, rows, "dpo")
    assert [each["role"] for each in pair["prompt"]] == ["system", "user", "assistant", "tool"]
    assert [each["content"] for each in pair["chosen"] + pair["rejected"]] == ["Answer 0-1", "Answer 0-0"]


def test_a_label_is_a_number_of_at_least_the_threshold(run_dir: Path, tmp_path: Path) -> None:
    rows = [dialogue(0, 0, True), dialogue(0, 1, 0.9), dialogue(1, 0, 3), dialogue(2, 0, None)]
    exported, records = written(run_dir, tmp_path, rows, "kto")
    assert [record["label"] for record in records] == [True, False, True]
    assert exported.skipped == {"no number at result.score": 1}
    assert records[0]["completion"] == [{"role": "assistant", "content": "Answer 0-0"}]


def test_a_group_has_rewards_and_the_tokens_that_the_server_returned(run_dir: Path, tmp_path: Path) -> None:
    rows = [dialogue(0, trial, trial) for trial in (1, 0)]
    _, (group,) = written(run_dir, tmp_path, rows, "grpo")
    assert group["rewards"] == [0, 1]
    assert group["answers"][1] == [{"role": "assistant", "content": "Answer 0-1"}]
    assert (group["token_ids"], group["logprobs"]) == ([[1, 2]] * 2, [[-0.5, -1.5]] * 2)


def test_the_suffix_chooses_a_training_format(run_dir: Path, tmp_path: Path) -> None:
    commit(run_dir, [dialogue(0, 0, 1)])
    export(run_dir, tmp_path / "a.sft.jsonl")
    assert set(read_lines(tmp_path / "a.sft.jsonl")[0]) == {"messages"}
    parts = export(run_dir, tmp_path / "b.sft.jsonl", select=Selection(test_fraction=0.01))
    assert [part.path.name for part in parts] == ["b-train.sft.jsonl", "b-test.sft.jsonl"]
