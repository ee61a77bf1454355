import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Annotated

import pytest
from msgspec import Meta

from peerloom import recipes
from peerloom.agents.function import FunctionAgent
from peerloom.errors import ConfigError
from peerloom.lookup import plugins
from peerloom.recipes import Recipe
from peerloom.runtime.program import Program
from peerloom.workflow import Sequence


@dataclass(frozen=True)
class Params:
    rounds: Annotated[int, Meta(ge=1)] = 2
    temperature: float = 0.5


def program(params: Params) -> Program:
    return Program(
        Sequence(*["echo"] * params.rounds), {"echo": FunctionAgent(lambda task: params.temperature)}
    )


ECHO = Recipe(name="echo", summary="says what it is told", params=Params, program=program)


def test_options_left_out_keep_their_defaults():
    workflow = ECHO.build({"temperature": 1}).workflow
    assert isinstance(workflow, Sequence)
    assert workflow.roles == ("echo",)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"round": 3}, r"recipe echo has no option 'round'\. Did you mean 'rounds'\?"),
        ({"zzz": 3}, r"recipe echo has no option 'zzz'\. There are: rounds, temperature\."),
        ({"rounds": 0}, r"recipe echo: Expected `int` >= 1 - at `rounds`"),
        ({"rounds": "two"}, r"recipe echo: Expected `int`, got `str` - at `rounds`"),
    ],
)
def test_a_wrong_option_is_named(params: dict[str, object], message: str):
    with pytest.raises(ConfigError, match=message):
        ECHO.build(params)


def test_built_in_recipes_are_found_by_name():
    assert "coral" in recipes.RECIPES.names()
    assert recipes.find("coral").name == "coral"


def test_an_unknown_name_gives_the_nearest():
    with pytest.raises(ConfigError, match=r"recipe=corral: there is no such recipe\. Did you mean 'coral'\?"):
        recipes.find("corral")


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = "peerloom_test_own_recipe"
    (tmp_path / f"{name}.py").write_text(
        "from peerloom.recipes import find\nOWN = find('coral')\nNUMBER = 3\n", "utf-8"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


def test_an_import_path_is_a_recipe(own_module: str):
    assert recipes.find(f"{own_module}:OWN") is recipes.find("coral")


def test_an_installed_package_may_declare_one(own_module: str, monkeypatch: pytest.MonkeyPatch):
    declared = EntryPoints([EntryPoint("own", f"{own_module}:OWN", "peerloom.recipes")])
    monkeypatch.setattr(plugins, "entry_points", declared.select)
    assert recipes.RECIPES.names() == ["coral", "natural_reasoning", "own"]
    assert recipes.find("own") is recipes.find("coral")


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        (":NUMBER", r"':?.*:NUMBER' is no recipe but int"),
        (":ABSENT", "cannot be imported: .*ABSENT"),
        (":", "cannot be imported"),
    ],
)
def test_what_is_no_recipe_is_refused(own_module: str, attribute: str, message: str):
    with pytest.raises(ConfigError, match=message):
        recipes.find(own_module + attribute)


def test_a_module_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match=r"recipe=no_such_module:R cannot be imported: .*module:Name"):
        recipes.find("no_such_module:R")
    with pytest.raises(ConfigError, match="cannot be imported"):
        recipes.find(":R")
