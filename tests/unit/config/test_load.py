from dataclasses import FrozenInstanceError, dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest

from peerloom.config import check, compose, to_yaml
from peerloom.config.sections.llm import LLM_GROUPS
from peerloom.errors import ConfigError


@dataclass(frozen=True)
class Options:
    max_rounds: Annotated[int, msgspec.Meta(ge=1)] = 3
    style: Literal["short", "long"] = "short"
    hints: tuple[str, ...] = ()
    weights: dict[str, float] = field(default_factory=dict)


def checked(*overrides: str):
    return check(compose("coral", overrides), Options)


def test_a_recipe_adds_its_own_options() -> None:
    config = checked("recipe.max_rounds=5", "recipe.hints=[a,b]")
    assert config.plain()["recipe"] == {
        "name": "coral", "max_rounds": 5, "style": "short", "hints": ["a", "b"], "weights": {}
    }  # fmt: skip


def test_a_config_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        checked().limit = 3


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["lmit=20"], "lmit=20: there is no key 'lmit'. Did you mean 'limit'?"),
        (["limit=abc"], "limit=abc: must be a whole number."),
        (["limit=-1"], "limit=-1: must be 1 or more."),
        (["limit=true"], "limit=true: must be a whole number."),
        (["limit=1.5"], "limit=1.5: must be a whole number."),
        (["source.pth=q"], "source.pth=q: there is no key 'source.pth'. Did you mean 'source.path'?"),
        (["sorce.path=q"], "sorce.path=q: there is no key 'sorce.path'. Did you mean 'source.path'?"),
        (
            ["source=q.jsonl"],
            "source.format=q.jsonl: there is no such format. Did you mean 'jsonl'? There are: arrow, "
            "auto, csv, documents, hf, html, json, jsonl, parquet, run, stream, text. "
            "A file is named by source.path=q.jsonl",
        ),
        (["source.path=3"], "source.path=3: must be text or a list."),
        (["source.path=[a,3]"], 'source.path=["a",3]: must be text.'),
        (["llm.modle=x"], "llm.modle=x: llm=llamacpp has no key 'llm.modle'. Did you mean 'llm.model'?"),
        (
            ["llm.base_url=http://x/v1"],
            "llm.base_url=http://x/v1: llm=llamacpp has no key 'llm.base_url'. "
            "It belongs to llm=anthropic and llm=azure and llm=gemini and llm=openai",
        ),
        (["model=x"], "model=x: there is no key 'model'. Did you mean 'llm.model'?"),
        (
            ["recipe.max_round=2"],
            "recipe.max_round=2: there is no key 'recipe.max_round'. Did you mean 'recipe.max_rounds'?",
        ),
        (["max_rounds=2"], "max_rounds=2: there is no key 'max_rounds'. Did you mean 'recipe.max_rounds'?"),
        (["recipe.max_rounds=0"], "recipe.max_rounds=0: must be 1 or more."),
        (["recipe.style=shrt"], "recipe.style=shrt: must be 'short' or 'long'. Did you mean 'short'?"),
        (["placement=packt"], "placement=packt: must be 'packed' or 'spread'. Did you mean 'packed'?"),
        (["engine=slurm"], "engine=slurm: must be 'ray' or 'local'."),
        (["llm.kind=foo"], f"llm.kind=foo: must be one of {', '.join(LLM_GROUPS)}"),
        (
            ["placement=spread", "roles.teacher.replica=2"],
            "roles.teacher.replica=2: there is no key 'roles.teacher.replica'. "
            "Did you mean 'roles.teacher.replicas'?",
        ),
        (
            ["placement=spread", "roles.teacher.resources.num_gpus=x"],
            "roles.teacher.resources.num_gpus=x: must be a number.",
        ),
        (
            ["llm.zzz=1"],
            "There are: llm.kind, llm.fallback, llm.model, llm.slots, llm.context, "
            "llm.threads, llm.replicas, llm.placement, llm.host, llm.limits, llm.routing.",
        ),
        (["llm=fleet"], "llm.name is needed: write llm.name=..."),
        (["llm.limits.requests=9"], "Did you mean 'llm.limits.requests_per_minute'?"),
        (["llm.routing.affinity=task"], "must be 'conversation', 'role', 'turn' or 'none'."),
        (["llms.judge.kind=foo"], f"llms.judge.kind=foo: must be one of {', '.join(LLM_GROUPS)}"),
        (
            ["llms.judge.kind=openai", "llms.judge.slots=4"],
            "llms.judge=openai has no key 'llms.judge.slots'. It belongs to llm=llamacpp",
        ),
        (["llms.judge.kind=scripted"], "or in Python peerloom.run(..., llm=function_of_the_request)"),
        (["llms.llm.kind=openai"], "llms.llm: that is the name of the service in llm: give this one another"),
        (["roles.teacher.llm=judge"], "roles.teacher.llm=judge: there is no such service; there are: llm"),
        (["llm.fallback=spare"], "the fallback of llm, spare, is no service; there are: llm"),
        (
            ["llm.fallback=spare", "llms.spare.kind=openai", "llms.spare.fallback=llm"],
            "the services llm -> spare -> llm fall back on each other for ever",
        ),
        (["engine=local", "llm.placement=nodes"], "engine=local knows no other machine"),
        (["heartbeat_seconds=0"], "heartbeat_seconds=0: must be more than 0."),
    ],
)  # fmt: skip
def test_a_mistake_is_named_as_typed_with_what_is_right(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        checked(*overrides)
    assert str(caught.value).endswith(message)
    assert len(str(caught.value).splitlines()) == 1


def test_every_mistake_gets_a_line() -> None:
    with pytest.raises(ConfigError) as caught:
        checked("limit=abc", "lmit=3")
    assert len(str(caught.value).splitlines()) == 2


def test_a_long_value_is_not_repeated_whole() -> None:
    with pytest.raises(ConfigError) as caught:
        checked("limit=" + "x" * 500)
    assert len(str(caught.value)) < 150


def test_run_yaml_says_everything_and_loads_again(tmp_path: Path) -> None:
    config = checked(
        "llm=simulated", "llm.latency=0.5", "source.path='a \\${x} ü.jsonl'", "recipe.max_rounds=7",
        "limit=2", "placement=spread", "roles.teacher.replicas=2",
    )  # fmt: skip
    file = tmp_path / "run.yaml"
    file.write_text(to_yaml(config, "a comment\nof two lines"))
    assert file.read_text().startswith("# a comment\n# of two lines\nrecipe:\n  name: coral\n")
    again = check(compose(str(file)), Options)
    assert again.plain() == config.plain()
