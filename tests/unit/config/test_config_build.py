from pathlib import Path

import pytest

from peerloom.config import Config, check, compose
from peerloom.config.build import make_router, make_settings, make_source, resolve
from peerloom.config.sections.llm import LLM_GROUPS, LlamaCpp
from peerloom.errors import ConfigError, ModelError, SourceError
from peerloom.runtime.settings import RoleSettings, RunSettings


def checked(*overrides: str) -> Config:
    return check(compose("coral", overrides))


def test_every_group_makes_its_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://mine.openai.azure.com/")
    for kind in LLM_GROUPS:
        more = {"scripted": ["llm.replies=[a]"], "fleet": ["llm.name=mine"]}.get(kind, [])
        llm = checked(f"llm={kind}", *more).llm
        assert llm is not None
        assert llm.kind == kind
        assert type(llm.service(0)).__name__.lower() in (f"{kind}service", "httpservice")


def test_weights_that_are_not_there_are_found_out_at_once(tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(ModelError, match="smollm2-135m"):
        resolve(checked("llm.model=smollm-135m"))
    (tmp_path / "mine.gguf").write_bytes(b"GGUF")
    monkeypatch.chdir(tmp_path)
    llm = resolve(checked("llm.model=mine.gguf")).llm
    assert isinstance(llm, LlamaCpp)
    assert llm.model == str(tmp_path / "mine.gguf")


def test_the_schemas_defaults_are_those_of_the_runtime() -> None:
    assert make_settings(resolve(checked("llm=simulated")), ["a"]) == RunSettings()


def test_compression_is_as_the_configuration_says() -> None:
    assert make_settings(resolve(checked("llm=simulated", "compress=never")), ["a"]).compress == "never"
    with pytest.raises(ConfigError, match="compress"):
        checked("compress=sometimes")


def test_placed_roles_fall_back_to_peers() -> None:
    config = resolve(
        checked("placement=spread", "peers=3", "roles.a.replicas=2", "roles.b.resources.num_gpus=0.5")
    )
    assert make_settings(config, ["a", "b", "c"]).roles == {
        "a": RoleSettings(2, {}),
        "b": RoleSettings(None, {"num_gpus": 0.5}),
    }
    with pytest.raises(ConfigError, match=r"roles.b: the workflow has no role 'b'"):
        make_settings(config, ["a"])


def test_paths_are_settled_so_that_run_yaml_works_anywhere(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/own")
    assert resolve(checked("source.path=q.jsonl")).source.path == str(tmp_path / "q.jsonl")
    assert resolve(checked("source.path=~/q.jsonl")).source.path == "/own/q.jsonl"
    both = resolve(checked("source.path=[a.jsonl,/b.jsonl]")).source.path
    assert both == (str(tmp_path / "a.jsonl"), "/b.jsonl")
    mixed = "source.path=[s3://b/*.jsonl,'hf://datasets/o/n?split=train&name=x',docs]"
    assert resolve(checked(mixed)).source.path == (
        "s3://b/*.jsonl", "hf://datasets/o/n?split=train&name=x", str(tmp_path / "docs"),
    )  # fmt: skip
    assert resolve(checked(), Path("/sample.jsonl")).source.path == "/sample.jsonl"
    assert resolve(checked()).source.path is None


def test_tasks_in_flight_suit_the_model_unless_given() -> None:
    assert resolve(checked("llm.slots=3")).in_flight == 3
    assert resolve(checked("llm=simulated")).in_flight == RunSettings.in_flight
    assert resolve(checked("in_flight=7")).in_flight == 7


def test_the_servers_address_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://lab:8000/v1")
    assert resolve(checked("llm=openai")).plain()["llm"]["base_url"] == "http://lab:8000/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", "http://me:hunter2@lab/v1")
    with pytest.raises(ConfigError, match=r"llm.base_url holds what looks like a secret"):
        resolve(checked("llm=openai"))


@pytest.mark.parametrize(
    ("kind", "variable", "own"),
    [
        ("azure", "AZURE_OPENAI_ENDPOINT", None),
        ("anthropic", "ANTHROPIC_BASE_URL", "https://api.anthropic.com"),
        ("gemini", "GOOGLE_GEMINI_BASE_URL", "https://generativelanguage.googleapis.com"),
    ],
)
def test_each_provider_has_a_variable_of_its_own(kind, variable, own, monkeypatch) -> None:
    assert resolve(checked(f"llm={kind}")).plain()["llm"]["base_url"] == own
    monkeypatch.setenv(variable, "http://lab:8000")
    assert resolve(checked(f"llm={kind}")).plain()["llm"]["base_url"] == "http://lab:8000"


def test_azure_needs_an_address() -> None:
    with pytest.raises(ConfigError, match=r"llm\.base_url is needed: set it, or AZURE_OPENAI_ENDPOINT"):
        checked("llm=azure").llm.service(0)


def test_a_key_is_read_from_the_variable_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAB_KEY", raising=False)
    llm = checked("llm=openai", "llm.api_key_env=LAB_KEY").llm
    with pytest.raises(ConfigError, match=r"llm.api_key_env=LAB_KEY: that environment variable is not set"):
        llm.service(0)
    monkeypatch.setenv("LAB_KEY", "very-secret")
    assert "very-secret" not in repr(llm.service(0))


def test_a_source_needs_a_path_that_is_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"source.path is needed"):
        make_source(checked())
    with pytest.raises(SourceError, match=r"none.jsonl"):
        make_source(checked("source.path=/none.jsonl"))


def test_what_is_read_follows_the_keys_of_the_source(tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text('{"a": {"n": 1}}\n{"a": {"n": 2}}\n')
    overrides = [f"source.path={tmp_path}/rows.txt", "source.format=jsonl", "source.field=a", "source.key=n"]
    (row,) = make_source(checked(*overrides, "limit=1")).rows(0, 1)
    assert (row.data, row.label) == ({"n": 1}, 1)
    with pytest.raises(ConfigError, match=r"source.format=xml"):
        checked("source.format=xml")


def test_no_model_at_all() -> None:
    with pytest.raises(ConfigError, match="no model is chosen"):
        make_router(checked("llm=null"))
