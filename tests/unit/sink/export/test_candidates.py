"""Several answers to one prompt within a task, and the messages that are not to be learned."""

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from training_rows import read_lines

import peerloom
from peerloom import FunctionAgent, LLMAgent, Sequence
from peerloom.errors import ConfigError
from peerloom.services.llm.base import ChatRequest
from peerloom.sink.export.writer import Exported, Selection, export

Run = Callable[..., Any]

QUESTIONS = [{"q": "one?"}, {"q": "two?"}]


def numbered() -> Callable[[ChatRequest], str]:
    """Replies that differ, the later the longer."""
    numbers = count(1)
    return lambda request: f"answer {'long ' * next(numbers)}"


def lengths(task: peerloom.Task) -> list[int]:
    return [len(turn.text) for turn in task.by("writer")]


@pytest.fixture
def run_of(run_workflow: Run) -> Callable[..., Path]:
    """Runs these roles, of which `writer` answers the question, and returns the run directory."""

    def run(*roles: str, result: Any = None, llm: Any = None, **agents: Any) -> Path:
        writer = LLMAgent("Answer {{ input.q }}", system="Be brief.")
        everyone = {"writer": writer, **agents} if "writer" in roles else agents
        workflow = Sequence(*roles, result=result)
        return run_workflow(workflow, everyone, QUESTIONS, llm=llm or numbered()).run_dir

    return run


def written(run_dir: Path, format: str, **options: Any) -> tuple[Exported, list[dict[str, Any]]]:
    target = run_dir.with_name(f"{format}.file")
    (exported,) = export(run_dir, target, format=format, options=options, select=Selection(force=True))
    return exported, read_lines(target)


def contents(messages: list[dict[str, Any]]) -> list[str]:
    return [message["content"] for message in messages]


def test_a_list_has_the_score_of_each_answer(run_of: Run) -> None:
    run_dir = run_of("writer", "writer", "writer", result=lambda task: {"scores": lengths(task)})
    options = {"candidates": "turns", "score": "result.scores"}
    exported, pairs = written(run_dir, "dpo", **options)
    assert (exported.rows, exported.skipped) == (2, {})
    assert [contents(pair["prompt"])[1] for pair in pairs] == ["Answer one?", "Answer two?"]
    for pair in pairs:
        assert [message["role"] for message in pair["prompt"]] == ["system", "user"]
        assert len(pair["chosen"][0]["content"]) - len(pair["rejected"][0]["content"]) > 5
    _, groups = written(run_dir, "grpo", **options)
    assert [len(group["answers"]) for group in groups] == [3, 3]
    assert [group["rewards"] for group in groups] == [
        [len(answer[0]["content"]) for answer in group["answers"]] for group in groups
    ]
    _, labeled = written(run_dir, "kto", threshold=23, **options)
    assert [each["label"] for each in labeled] == [
        len(each["completion"][0]["content"]) >= 23 for each in labeled
    ]


def test_a_judge_scores_the_answers_since_its_last_turn(run_of: Run) -> None:
    judge = FunctionAgent(lambda task: {"mark": -len(task.by("writer")[-1].text)})
    run_dir = run_of("writer", "judge", "writer", "judge", judge=judge)
    _, pairs = written(run_dir, "dpo", candidates="turns", judge="judge.mark")
    assert [contents(pair["chosen"]) < contents(pair["rejected"]) for pair in pairs] == [True, True]
    both = FunctionAgent(lambda task: [1, 2, 2])
    _, (group, _) = written(
        run_of("writer", "writer", "writer", "both", both=both), "grpo", candidates="turns", judge="both"
    )
    assert group["rewards"] == [1, 2, 2]


def test_agents_with_the_same_prompt_are_candidates(run_of: Run) -> None:
    rival = LLMAgent("Answer {{ input.q }}", system="Be brief.")
    stranger = LLMAgent("Answer {{ input.q }}", system="Be long.")
    scores = {"writer": 1, "rival": 3, "stranger": 9}
    run_dir = run_of(
        *("writer", "rival", "stranger"),
        rival=rival,
        stranger=stranger,
        result=lambda task: {"score": scores},
    )
    exported, pairs = written(run_dir, "dpo", candidates="turns")
    assert exported.skipped == {"the only answer to its prompt in its task": 2}
    assert [len(contents(pair["chosen"])[0]) > len(contents(pair["rejected"])[0]) for pair in pairs] == [
        True,
        True,
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score": "result.short"}, r"not one number at result.short for each answer \(2\)"),
        ({"score": "result.none"}, r"not one number at result.none for each answer \(2\)"),
        ({"score": "result.words"}, r"no number at result.words \(2\)"),
        ({"score": "result.equal"}, r"answers with equal scores \(2\)"),
        ({"judge": "jugde"}, "judge=jugde: no row has a turn of that role. Did you mean 'judge'"),
        ({"judge": "judge", "score": "result.short"}, "score=result.short and judge=judge: give one of them"),
        ({"assistant": "writr"}, "assistant=writr: no row has a turn of that role"),
        ({"assistant": "judge"}, r"no recorded call of judge \(2\)"),
    ],
)
def test_scores_that_do_not_fit_are_explained(run_of: Run, options: dict[str, Any], message: str) -> None:
    result = {"short": [1], "words": ["a", "b"], "equal": [1, 1], "none": None}
    judge = FunctionAgent(lambda task: [1, 2])
    run_dir = run_of("writer", "writer", "judge", judge=judge, result=lambda task: result)
    with pytest.raises(ConfigError, match=message):
        written(run_dir, "dpo", candidates="turns", **options)


def test_a_refused_reply_is_not_part_of_the_answer(run_of: Run) -> None:
    def replies(request: ChatRequest) -> str:
        return "4" if "cannot be used" in request.messages[-1]["content"] else "four"

    judge = LLMAgent("Rate it.", parse=int, chat_role=None)
    run_dir = run_of("judge", judge=judge, llm=replies)
    _, records = written(run_dir, "sft", assistant="judge")
    assert contents(records[0]["messages"]) == ["Rate it.", "4"]


EXAMPLE = [{"role": "user", "content": "zero?"}, {"role": "assistant", "content": "none"}]


class WithExample:
    """Asks twice, and begins with an example."""

    async def act(self, task: peerloom.Task, services: peerloom.Services) -> peerloom.Turn:
        said = [turn.message for turn in task.turns if turn.message]
        messages = [*EXAMPLE, {"role": "user", "content": task.input["q"]}, *said]
        reply = await services.llm.chat(peerloom.ChatRequest(messages=messages))
        return peerloom.Turn("", {"role": "assistant", "content": reply.text})


class User:
    async def act(self, task: peerloom.Task, services: peerloom.Services) -> peerloom.Turn:
        return peerloom.Turn("", {"role": "user", "content": "More?"})


@pytest.fixture
def with_example(run_of: Run) -> Path:
    return run_of("helper", "user", "helper", helper=WithExample(), user=User())


def test_examples_are_masked_where_a_format_can(with_example: Path) -> None:
    _, (openai, _) = written(with_example, "openai")
    assert [each.get("weight") for each in openai["messages"]] == [None, 0, None, None, None, None]
    _, (last, _) = written(with_example, "openai", train="last")
    assert [each.get("weight") for each in last["messages"]] == [None, 0, None, 0, None, None]
    _, (sharegpt, _) = written(with_example, "sharegpt")
    assert [each.get("train") for each in sharegpt["conversations"]] == [None, False, None, None, None, None]
    _, records = written(with_example, "sft", style="prompt-completion", train="all")
    assert [len(record["prompt"]) for record in records] == [3, 5, 3, 5]
    assert all(len(record["completion"]) == 1 for record in records)
    _, (atif, _) = written(with_example, "atif")
    assert [step.get("is_copied_context") for step in atif["steps"]] == [None, True, None, None, None, None]


def test_a_format_without_a_mask_refuses(with_example: Path) -> None:
    with pytest.raises(ConfigError, match=r"not to be learned.*: use style=prompt-completion \(2\)"):
        written(with_example, "sft")
    with pytest.raises(ConfigError, match="train=last needs style=prompt-completion"):
        written(with_example, "sft", train="last")


def test_each_of_several_assistants_has_a_record(run_of: Run) -> None:
    rival = LLMAgent("Answer {{ input.q }}", system="Be rude.")
    run_dir = run_of("writer", "rival", rival=rival)
    _, records = written(run_dir, "sft", assistant="writer,rival")
    assert [contents(record["messages"])[0] for record in records] == ["Be brief.", "Be rude."] * 2
