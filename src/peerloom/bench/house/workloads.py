"""The work that all systems do: where its rows come from, what the model does, and how often it is called.

`hops`: see `peerloom.bench.hops`; no model. `mini-coral`: see `peerloom.bench.calls`. `nr`: a document is
filtered, marked and made a question of, three calls; 70 % stop at the first one, and replies are as long as
those of a real model, so some take many times longer than most. `tau`: a dialogue of a model with a tool, up
to 50 calls of each in turn, 100 turns; a step of the tool is a line to a process and a line back.

How long a reply is, and how a row ends, is in the row: so every system does the same, whatever its order.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from peerloom.bench import calls, hops
from peerloom.bench.works import tool
from peerloom.services.llm.prose import prose

REPLY_TOKENS = (
    *(20, 28, 32, 34, 35, 37, 39, 41, 43, 45, 46, 47, 49, 50, 51, 52),
    *(54, 55, 57, 60, 61, 62, 64, 65, 67, 69, 71, 71, 74, 75, 78, 80),
    *(81, 84, 87, 88, 90, 92, 95, 98, 99, 102, 106, 109, 112, 117, 123, 128),
    *(133, 138, 147, 159, 168, 187, 210, 233, 290, 370, 781, 1079, 1294, 1618, 2040, 2589),
)
"""Lengths of a real model's replies to a thousand multiple-choice questions, at 64 quantiles, in tokens."""
TOKENS_PER_SECOND = 200.0  # of one reply
KEPT = 0.3  # of the documents
MAX_EXCHANGES = 50  # of a dialogue with a tool
DOCUMENT = 2_000  # characters
SYSTEM = calls.SPEAKER
LONG = 4_096  # tokens of a reply, unless the call asks for less


@dataclass(frozen=True)
class Workload:
    """Some work.

    Args:
        name: of it.
        rows: makes so many rows.
        calls: of the model, for these rows; 0 if there is none.
        laws: of the simulated model, beside its latency.
        spec: what else a system has to know: prompts, mostly.
    """

    name: str
    rows: Callable[[int], Iterator[dict[str, Any]]]
    calls: Callable[[list[dict[str, Any]]], int]
    laws: Mapping[str, float] = field(default_factory=dict[str, float])
    spec: Mapping[str, Any] = field(default_factory=dict[str, Any])


def _hops(count: int) -> Iterator[dict[str, Any]]:
    yield from hops.question_rows(count)


def _coral(count: int) -> Iterator[dict[str, Any]]:
    yield from calls.question_rows(count)


def _documents(count: int) -> Iterator[dict[str, Any]]:
    for number in range(count):
        rng = Random(number)
        yield {
            "text": prose(DOCUMENT, number),
            "keep": rng.random() < KEPT,
            "tokens": [rng.choice(REPLY_TOKENS) for _ in range(3)],
        }


def _dialogues(count: int) -> Iterator[dict[str, Any]]:
    for number in range(count):
        rng = Random(number)
        exchanges = min(MAX_EXCHANGES, max(5, round(rng.lognormvariate(3.0, 0.6))))
        yield {"request": prose(400, number), "exchanges": exchanges}


MINI_CORAL = Workload(
    "mini-coral",
    _coral,
    lambda rows: calls.CALLS * len(rows),
    {"tokens": calls.REPLY_TOKENS},
    {"speaker": calls.SPEAKER, "extractor": calls.EXTRACTOR, "pattern": calls.STATED.pattern},
)
NR = Workload(
    "nr",
    _documents,
    lambda rows: sum(3 if row["keep"] else 1 for row in rows),
    {"tokens": LONG, "tokens_per_second": TOKENS_PER_SECOND},
    {"system": SYSTEM, "roles": ["filter", "score", "question"]},
)
TAU = Workload(
    "tau",
    _dialogues,
    lambda rows: sum(row["exchanges"] for row in rows),
    {"tokens": 40},
    {"system": SYSTEM, "tool": str(Path(tool.__file__)), "tools": 8},
)
HOPS = Workload("hops", _hops, lambda rows: 0)
WORKLOADS = {each.name: each for each in (HOPS, MINI_CORAL, NR, TAU)}
