from pathlib import Path

import pytest

from peerloom.config import compose
from peerloom.errors import ConfigError


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_the_defaults_are_the_embedded_model_and_the_recipe() -> None:
    assert compose("coral") == {"llm": {"kind": "llamacpp"}, "recipe": {"name": "coral"}}


def test_overrides_are_typed() -> None:
    composed = compose(
        "coral", ["limit=20", "source.path=[a.jsonl,b.jsonl]", "seed=null", "llm.extra_body={a:1.5}"]
    )
    assert composed["limit"] == 20
    assert composed["source"]["path"] == ["a.jsonl", "b.jsonl"]
    assert composed["seed"] is None
    assert composed["llm"]["extra_body"] == {"a": 1.5}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", ""),
        ("1e3", 1000.0),
        ("on", "on"),
        ("'1'", "1"),
        ("'it\\'s'", "it's"),
        ('"a,b"', "a,b"),
        (" a b ", "a b"),
        ("[a b, 'c,d', [1, null]]", ["a b", "c,d", [1, None]]),
        ("{a: 1.5, b:{c:[true]}}", {"a": 1.5, "b": {"c": [True]}}),
        ("http://h:1/v1", "http://h:1/v1"),
        ("}", "}"),
        ("x${limit}", "x7"),
        ("[${limit}, '${limit}', b]", [7, 7, "b"]),
        ("'\\${limit}'", "${limit}"),
        ("\\${limit}", "${limit}"),
    ],
)
def test_a_value_is_read_as_it_is_written(text: str, value: object) -> None:
    assert compose("coral", ["limit=7", f"llm.value={text}"])["llm"]["value"] == value


@pytest.mark.parametrize("path", ["~/q.jsonl", "run(1).jsonl", "a=b.jsonl", "q*.jsonl", "with space.jsonl"])
def test_a_path_needs_no_quotes(path: str) -> None:
    assert compose("coral", [f"source.path={path}"])["source"]["path"] == path


def test_an_llm_group_is_chosen_by_name() -> None:
    assert compose("coral", ["llm=openai", "llm.model=m"])["llm"] == {"kind": "openai", "model": "m"}


def test_python_values_win_over_overrides() -> None:
    composed = compose(
        "coral", ["limit=1", "llm=openai"], values={"limit": 2, "llm": "simulated", "llm.latency": 0.5}
    )
    assert composed["limit"] == 2
    assert composed["llm"] == {"kind": "simulated", "latency": 0.5}


def test_python_values_are_not_interpolated() -> None:
    assert compose("coral", values={"source.path": ["a${b}.jsonl"]})["source"]["path"] == ["a${b}.jsonl"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("q.jsonl", "q.jsonl: not an override: write key=value"),
        ("a b=1", "a b=1: not an override"),
        ("~limit=1", "~limit=1: not an override"),
        ("source.path=a,b", r"a list is written \[a,b\]"),
        ("source.path='a','b'", r"a list is written \[a,b\]"),
        ("source.path=[a", r"source.path=\[a: missing ']' at the end"),
        ("source.path='it's'", r"a quote in a value is written \\'"),
        ("source.path=[a,]", "an element is missing in 'a,'"),
        ("source.path={a}", "expecting ':'"),
        ("recipe=tau2", "the recipe is the first argument: peerloom run tau2"),
        ("source.path=${oc.env:PEERLOOM_NO_SUCH}", "source.path: .*PEERLOOM_NO_SUCH"),
        ("llm=llamacp", "llm=llamacp: there is no such llm. Did you mean 'llamacpp'"),
    ],
)
def test_an_override_that_cannot_be_read_is_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose("coral", [override])


def test_the_users_own_llm_group_builds_on_ours(tmp_path: Path) -> None:
    write(tmp_path / "llm" / "lab.yaml", "defaults: [openai]\nmodel: big\nbase_url: http://lab/v1\n")
    composed = compose("coral", ["llm=lab"], config_dir=tmp_path)
    assert composed["llm"] == {"kind": "openai", "model": "big", "base_url": "http://lab/v1"}


def test_a_file_may_build_on_our_option_of_its_name(tmp_path: Path) -> None:
    write(tmp_path / "llm" / "openai.yaml", "defaults: [openai]\nmodel: ours\n")
    write(tmp_path / "llm" / "mine.yaml", "defaults: [openai]\nbase_url: http://mine\n")
    composed = compose("coral", ["llm=mine"], config_dir=tmp_path)
    assert composed["llm"] == {"kind": "openai", "model": "ours", "base_url": "http://mine"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("defaults: {a: b}\n", "bad.yaml: defaults is a list of options"),
        ("defaults: [{a: b}]\n", "bad.yaml: defaults is a list of options"),
        ("defaults: [bad]\n", "bad.yaml: builds on itself"),
        ("defaults: [opnai]\n", "llm=opnai: there is no such llm. Did you mean 'openai'"),
        ("- a\n", "bad.yaml: an option of a group is a mapping"),
        ("kind: openai\nkind: azure\n", "bad.yaml:2: not YAML: found duplicate key kind"),
    ],
)
def test_an_option_that_cannot_be_read_is_named(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path / "llm" / "bad.yaml", text)
    with pytest.raises(ConfigError, match=message):
        compose("coral", ["llm=bad"], config_dir=tmp_path)


def test_the_users_options_of_a_recipe_are_taken_with_it(tmp_path: Path) -> None:
    write(tmp_path / "recipe" / "coral.yaml", "max_rounds: 9\n")
    write(tmp_path / "recipe" / "coral-short.yaml", "name: coral\nmax_rounds: 1\n")
    assert compose("coral", config_dir=tmp_path)["recipe"] == {"name": "coral", "max_rounds": 9}
    assert compose("coral-short", config_dir=tmp_path)["recipe"] == {"name": "coral", "max_rounds": 1}
    assert compose("other", config_dir=tmp_path)["recipe"] == {"name": "other"}


def test_a_config_directory_may_have_any_name(tmp_path: Path) -> None:
    own = tmp_path / "it's, a (new) dir"
    write(own / "llm" / "lab.yaml", "kind: openai\n")
    assert compose("coral", ["llm=lab"], config_dir=own)["llm"]["kind"] == "openai"


def test_what_is_wrong_with_the_users_files_is_located(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such directory"):
        compose("coral", config_dir=tmp_path / "none")
    write(tmp_path / "llm" / "bad.yaml", "kind: openai\nmodel: [a\n")
    with pytest.raises(ConfigError, match=r"bad.yaml:3: not YAML"):
        compose("coral", ["llm=bad"], config_dir=tmp_path)


def test_a_run_file_names_its_recipe_and_gives_way_to_overrides(tmp_path: Path) -> None:
    file = write(
        tmp_path / "run.yaml",
        "recipe: {name: coral, max_rounds: 2}\nllm: {kind: openai, model: m}\nlimit: 5\n",
    )
    assert compose(str(file), ["limit=6"]) == {
        "recipe": {"name": "coral", "max_rounds": 2},
        "llm": {"kind": "openai", "model": "m"},
        "limit": 6,
    }


def test_another_llm_group_puts_that_of_the_run_file_aside(tmp_path: Path) -> None:
    file = write(tmp_path / "run.yaml", "recipe: {name: coral}\nllm: {kind: openai, model: m}\n")
    assert compose(str(file), ["llm=simulated"])["llm"] == {"kind": "simulated"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "there is no such file"),
        ("- a\n", "is a mapping of keys"),
        ("a: [\n", r"run.yaml:2: not YAML"),
        ("recipe: coral\n", "recipe is a mapping"),
    ],
)
def test_a_run_file_that_cannot_be_read_is_named(tmp_path: Path, text: str | None, message: str) -> None:
    file = tmp_path / "run.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        compose(str(file))


def test_a_key_below_a_list_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"ray\.address: cannot be set: it is below a list"):
        compose("coral", ["ray=[a]", "ray.address=b"])
