"""What all adapters share; nothing but the standard library, so that it runs in any peer's environment.

An adapter is called with the path of a JSON file that says what to do, and prints an object as its last line.
"""

import asyncio
import json
import re
import sys
import time
from pathlib import Path

SPEAKERS = ("teacher", "student", "teacher")


class Spec:
    """What to do, as attributes; `rows_` are the rows."""

    def __init__(self, path):
        self.__dict__.update(json.loads(Path(path).read_text()))
        self.rows_ = [json.loads(line) for line in Path(self.rows).read_text().splitlines()]
        self.stated = re.compile(self.__dict__.get("pattern", ""))


def spec():
    """The spec this process was given."""
    return Spec(sys.argv[1])


def said(begin, tasks, **more):
    """Print what came of it; `begin` is when the first task was admitted, the last one has just ended."""
    print("\n" + json.dumps({"begin": begin, "end": time.time(), "tasks": tasks, **more}), flush=True)


def opening(row):
    """The question of mini-coral with its options."""
    options = "\n".join(f"({'ABCD'[n]}) {option}" for n, option in enumerate(row["options"]))
    return f"Question: {row['question']}\n{options}\n"


def speak(spec, row, speaker, statements):
    """The messages by which a speaker is asked: the whole conversation, seen from its side."""
    messages = [
        {"role": "system", "content": spec.speaker},
        {"role": "user", "content": opening(row)},
    ]
    for who, text in statements:
        if who == speaker:
            messages.append({"role": "assistant", "content": text})
        elif messages[-1]["role"] == "user":
            messages[-1] = {"role": "user", "content": f"{messages[-1]['content']}\n\n{text}"}
        else:
            messages.append({"role": "user", "content": text})
    return messages


def extract(spec, text):
    """The messages by which it is asked which option a statement holds right."""
    return [{"role": "system", "content": spec.extractor}, {"role": "user", "content": text}]


def letter(spec, text):
    """The option that was found, or None."""
    found = spec.stated.findall(text)
    return found[-1] if found else None


async def mini_coral(spec, chat, row):
    """Six calls and three matches, one after the other."""
    statements, letters = [], []
    for speaker in SPEAKERS:
        text = await chat(speak(spec, row, speaker, statements), None)
        statements.append((speaker, text))
        letters.append(letter(spec, await chat(extract(spec, text), None)))
    return letters


def step(spec, row, number):
    """The messages of one of the calls of nr."""
    return [
        {"role": "system", "content": spec.system},
        {"role": "user", "content": f"{row['text']}\n\nStep {number + 1}."},
    ]


async def nr(spec, chat, row):
    """Filter, score, question; most stop at the first."""
    texts = []
    for number in range(3 if row["keep"] else 1):
        texts.append(await chat(step(spec, row, number), row["tokens"][number]))
    return texts


TASKS = {"mini-coral": mini_coral, "nr": nr}


async def loop(spec, chat):
    """All tasks of a workload in one event loop, `in_flight` at once; prints what came of it."""
    task, left, results = TASKS[spec.workload], iter(spec.rows_), []

    async def worker():
        for row in left:
            results.append(await task(spec, chat, row))

    begin = time.time()
    await asyncio.gather(*(worker() for _ in range(min(spec.in_flight, spec.tasks))))
    assert len(results) == spec.tasks, (len(results), spec.tasks)
    said(begin, len(results))
