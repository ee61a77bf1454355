"""Requests as differences: they come back as they were, and a long dialogue stays linear."""

import random
from typing import Any

import orjson
import pytest

from peerloom.sink.calls.requests import RowRequests

DOCUMENT = "A river carries water to the sea.\n\nIt begins at a spring, far away in the hills."
RULES = "Write one plain sentence for beginners, and do not repeat what was said before."


def round_trip(input: Any, steps: list[tuple[str, dict[str, Any], Any]]) -> list[int]:
    """The size of each stored request; each of them is checked."""
    writer, reader = RowRequests(lambda: input), RowRequests(lambda: orjson.loads(orjson.dumps(input)))
    sizes: list[int] = []
    for role, request, message in steps:
        stored = orjson.dumps(writer.store(role, request))
        assert reader.restore(role, orjson.loads(stored)) == request
        for row in (writer, reader):
            row.texts.add_turn(message and message["content"])
        sizes.append(len(stored))
    return sizes


def user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


def test_a_document_of_the_input_is_not_stored_again() -> None:
    request = {"messages": [user(f"Read this:\n\n{DOCUMENT}\n\n{RULES}")]}
    [size] = round_trip({"page": {"text": DOCUMENT}}, [("reader", request, None)])
    assert size < len(DOCUMENT) + len(RULES)


def test_a_dialogue_grows_by_its_new_texts() -> None:
    turns: list[str] = []
    steps: list[tuple[str, dict[str, Any], Any]] = []
    for number in range(100):
        said = [
            {"role": ("user", "assistant")[position % 2 == number % 2], "content": text}
            for position, text in enumerate(turns)
        ]
        messages = [{"role": "system", "content": RULES}, *said, user(f"Now you, please, {number % 2}.")]
        turns.append(f"Statement {number}, which is different from all that were made before it.")
        steps.append((f"role-{number % 2}", {"messages": messages, "seed": number}, user(turns[-1])))
    sizes = round_trip({}, steps)
    assert max(sizes[10:]) <= 1.2 * max(sizes[2:10])


@pytest.mark.parametrize(
    "content",
    [
        "",
        "short",
        DOCUMENT,
        f"{DOCUMENT}{DOCUMENT}",
        f"\n\n{DOCUMENT}\n\n",
        [{"type": "text", "text": DOCUMENT}],
        [],
        ["a list", "of texts"],
        [1, 2],
        None,
    ],
)
def test_any_content_comes_back(content: Any) -> None:
    message = {"role": "assistant", "content": content, "tool_calls": [{"id": "a"}]}
    steps = [(role, {"messages": [message, user(DOCUMENT)]}, user(DOCUMENT)) for role in ("a", "b", "a")]
    round_trip([DOCUMENT, {"more": RULES}], steps)


def test_fields_that_change_or_go_come_back() -> None:
    requests = [
        {"messages": [user(RULES)], "temperature": 0.5, "stop": ["\n"]},
        {"messages": [user(RULES)], "stop": ["\n"], "seed": 3},
        {"messages": [user(DOCUMENT)]},
    ]
    round_trip({}, [("a", request, None) for request in requests])


@pytest.mark.parametrize("seed", range(30))
def test_random_rows_come_back(seed: int) -> None:
    draw = random.Random(seed)
    texts = [DOCUMENT, RULES, "yes", f"{RULES}\n\n{DOCUMENT}", "\n\n", "x" * 24]

    def text() -> str:
        return draw.choice(("", "\n\n", " ", "and ")).join(draw.choices(texts, k=draw.randint(1, 4)))

    steps = [
        (
            draw.choice("ab"),
            {"messages": [user(text()) for _ in range(draw.randint(1, 4))], "seed": draw.randint(0, 2)},
            draw.choice((None, user(text()))),
        )
        for _ in range(12)
    ]
    round_trip({"a": text(), "b": [text()]}, steps)
