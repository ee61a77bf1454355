import json
from pathlib import Path

import pytest

from peerloom.services.llm.llamacpp import weights as models


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PEERLOOM_CACHE", str(tmp_path))
    return tmp_path


def test_models_are_listed(peerloom) -> None:
    ended = peerloom("models", "list")
    assert ended.code == 0
    assert "smollm2-135m" in ended.out
    assert "Apache-2.0" in ended.out


def test_models_as_json(peerloom) -> None:
    (listed,) = json.loads(peerloom("models", "list", "--json").out)
    assert (listed["name"], listed["path"]) == ("smollm2-135m", None)


def test_a_model_that_is_here_is_not_pulled_again(peerloom, tmp_path: Path) -> None:
    path = tmp_path / "mine.gguf"
    path.write_bytes(b"GGUF")
    assert peerloom("models", "pull", path).out == f"{path}\n"
    ended = peerloom("models", "pull", path, "--json")
    assert json.loads(ended.out)["path"] == str(path)
    assert ended.err == ""


def test_a_pull_shows_how_far_it_is(peerloom, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pull(name: str, progress: models.Progress) -> Path:
        progress("pulling", 1_000_000, 4_000_000)
        progress("pulling", 4_000_000, 4_000_000)
        progress("converting", 2_000_000, 2_000_000)
        return own_cache / name

    monkeypatch.setattr("peerloom.cli.commands.models.pull", pull)
    ended = peerloom("models", "pull", "smollm2-135m")
    assert ended.out == f"{own_cache / 'smollm2-135m'}\n"
    assert "pulling smollm2-135m" in ended.err
    assert "4.0/4.0 MB" in ended.err
    assert ended.err.index("pulling") < ended.err.index("converting smollm2-135m")
    assert "2.0/2.0 MB" in ended.err


def test_an_unknown_model_is_refused_with_the_nearest(peerloom) -> None:
    ended = peerloom("models", "pull", "smollm-135m")
    assert ended.code == 2
    assert "did you mean 'smollm2-135m'" in ended.err
