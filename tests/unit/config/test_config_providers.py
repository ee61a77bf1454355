"""A provider of someone else's: one class, found by its import path or by its entry point."""

import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest

from peerloom.config import Config, check, compose, to_yaml
from peerloom.config.build import resolve
from peerloom.config.resume import resume_values
from peerloom.config.sections.llm import find_group
from peerloom.errors import ConfigError
from peerloom.lookup import plugins

SOURCE = """
from dataclasses import dataclass
from typing import Annotated

from peerloom.options import FREE, SAME, Count
from peerloom.services.llm.providers.dialect import Provider
from peerloom.services.llm.providers.openai import OpenAIDialect


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab(OpenAIDialect):
    width: Annotated[Count, SAME] = 2
    region: Annotated[str, FREE] = "north"
    provider = Provider("http://lab/v1", "LAB_URL", "LAB_KEY")


@dataclass(frozen=True, slots=True, kw_only=True)
class Needy(Lab):
    depth: Annotated[Count, SAME]


not_one = 3
"""
PATH = "a_lab_of_mine:Lab"


@pytest.fixture(autouse=True)
def a_module_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a_lab_of_mine.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "a_lab_of_mine", raising=False)
    find_group.cache_clear()


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("lab", PATH, "peerloom.providers")

    monkeypatch.setattr(plugins, "entry_points", EntryPoints([point]).select)


def checked(*overrides: str) -> Config:
    return check(compose("coral", overrides))


def test_a_provider_is_found_by_its_import_path(tmp_path: Path) -> None:
    config = resolve(checked(f"llm={PATH}", "llm.width=3", "llm.model=m", "llm.limits.concurrency=4"))
    llm: Any = config.llm
    assert (llm.kind, llm.width, llm.region) == (PATH, 3, "north")
    assert (llm.base_url, llm.api_key_env, llm.limits.concurrency) == ("http://lab/v1", "LAB_KEY", 4)
    kept = resume_values(config).same
    assert kept["llm.width"] == 3
    assert "llm.region" not in kept
    (tmp_path / "run.yaml").write_text(to_yaml(config))
    assert check(compose(str(tmp_path / "run.yaml"))).plain() == config.plain()


def test_a_provider_makes_its_service(monkeypatch: pytest.MonkeyPatch) -> None:
    llm = checked(f"llm={PATH}").llm
    assert llm is not None
    assert type(llm.service(0)).__name__ == "HttpService"
    named = checked(f"llm={PATH}", "llm.api_key_env=LAB_OTHER").llm
    assert named is not None
    with pytest.raises(ConfigError, match=r"llm.api_key_env=LAB_OTHER: that environment variable is not set"):
        named.service(0)


def test_a_provider_is_found_by_its_entry_point(declared: None) -> None:
    config = checked("llms.big.kind=lab", "llms.big.width=4")
    big: Any = config.llms["big"]
    assert (big.kind, big.width) == ("lab", 4)
    with pytest.raises(ConfigError, match=r"llm=lba: there is no such llm. Did you mean 'lab'"):
        checked("llm=lba")


def test_its_keys_are_checked_as_ours(declared: None) -> None:
    with pytest.raises(ConfigError) as caught:
        checked("llm=lab", "llm.width=0", "llm.widht=1", "llm.limit_field=x")
    assert str(caught.value).splitlines() == [
        "llm.widht=1: llm=lab has no key 'llm.widht'. Did you mean 'llm.width'?",
        "llm.limit_field=x: llm=lab has no key 'llm.limit_field'. Did you mean 'llms.<name>.limit_window'?",
        "llm.width=0: must be 1 or more.",
    ]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no_such_module_at_all:Lab", "cannot be imported: No module named 'no_such_module_at_all'"),
        ("a_lab_of_mine:Nope", "cannot be imported: .*'Nope'"),
        ("a_lab_of_mine:Needy", "each option of a dialect needs a default: .*'depth'"),
        ("a_lab_of_mine:not_one", "is no provider: it must be the class of a dialect"),
    ],
)
def test_a_path_without_a_provider_is_named(path: str, message: str) -> None:
    for overrides in ([f"llm={path}"], [f"llms.a.kind={path}"]):
        with pytest.raises(ConfigError, match=message):
            checked(*overrides)
