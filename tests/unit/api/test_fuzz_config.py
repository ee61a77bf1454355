"""Random configurations end in a plan or in an error of ours, not in a traceback, a hang, or a long text."""

import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from peerloom.api import make_plan
from peerloom.config.schema import Config
from peerloom.config.sections.base import fields_of, is_section
from peerloom.errors import PeerloomError

LONGEST_MESSAGE = 5_000
HANG_SECONDS = 20
MODELS = ("simulated", "scripted", "openai", "azure", "anthropic", "gemini", "fleet", "llamacpp")
VALUES = (
    *("", "null", "~", "true", "0", "-1", "1", "0.5", "1e9", "1e400", ".nan", "-.inf", "9" * 400),
    *("18446744073709551616", "abc", "[]", "{}", "[1, 2]", "{a: {b: c}}", "'", '"', "[", "{", "{a: 1}"),
    *("!!python/object/apply:os.getcwd []", "!!binary aGk=", "!!set {a}", "&a [*a]", "*a", "<<: x"),
    *("2020-01-01", "0x10", "yes", "\x00", "\x1b[31m", "é" * 50, "\ud800", "a" * 100_000, "${oc.env:HOME}"),
    *("${llm.model}", "${x", "%s", "{{ 7*7 }}", "../../etc/passwd", "/dev/zero", "/dev/stdin", "~root"),
    *("http://127.0.0.1:1/x", "http://", "http://[::1", "https://user:pass@h/", "http://\x00", "s3://b/k"),
    *("hf://datasets/x/y", "*.jsonl", "[**]", "ray", "local", "coral", "parquet", "{'(': {prompt: 1}}"),
    *("sk-aaaaaaaaaaaaaaaaaaaaaaaa", "- a\n- b", "a: b: c", "#", "@x", "%TAG", "\t", *MODELS),
)
RECIPES = ("coral", "natural_reasoning", "nope", "a.b:c", "", "os:getcwd", "/etc/passwd", "x.yaml", "..")
MORE = (
    *("llm.model", "llm.base_url", "llm.limits.concurrency", "llm.extra_body.x", "llms"),
    *(
        "llm.replies",
        "llm.structured",
        "llm.timeout",
        "llms.a.kind",
        "llms.a.fallback",
        "llms.b.kind",
        "recipe",
    ),
    *("roles.teacher.llm", "roles.x.replicas", "roles.teacher.resources", "recipe.max_rounds", "recipe.nope"),
    *(
        "recipe.name",
        "budget.usd",
        "prices",
        "cache.path",
        "source",
        "sink",
        "a.b.c.d",
        "",
        "=",
        "..",
        "llm..x",
    ),
)


def keys(model: type[Any], prefix: str = "") -> Iterator[str]:
    for name, field in fields_of(model).items():
        yield prefix + name
        for kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if is_section(kind):
                yield from keys(kind, f"{prefix}{name}.")


KEYS = (*keys(Config), *MORE, *MORE)


@contextmanager
def no_hang() -> Iterator[None]:
    def hang(signum: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"no answer within {HANG_SECONDS} s")

    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(HANG_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def overrides(dice: random.Random) -> list[str]:
    given = [f"{dice.choice(KEYS)}={dice.choice(VALUES)}" for _ in range(dice.choice([1, 1, 2, 3, 5, 8]))]
    if dice.random() < 0.05:
        given.append(
            dice.choice([dice.choice(KEYS), f"+{dice.choice(KEYS)}=1", f"~{dice.choice(KEYS)}", "=="])
        )
    return [f"llm={dice.choice(MODELS)}", *given] if dice.random() < 0.7 else given


def try_one(dice: random.Random) -> None:
    recipe = dice.choice(RECIPES) if dice.random() < 0.15 else dice.choice(RECIPES[:2])
    given = overrides(dice)
    try:
        with no_hang():
            assert make_plan(recipe, given).yaml
    except PeerloomError as error:
        assert len(str(error)) <= LONGEST_MESSAGE, (recipe, [each[:80] for each in given])
        str(error).encode()
    except Exception as error:
        error.add_note(f"{recipe!r} {[each[:80] for each in given]!r}")
        raise


@pytest.mark.parametrize("seed", range(8))
def test_random_configurations(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    dice = random.Random(seed)
    for _ in range(10):
        try_one(dice)


@pytest.mark.slow
def test_a_thousand_random_configurations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    dice = random.Random(1)
    for _ in range(1_000):
        try_one(dice)
