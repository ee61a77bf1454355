import json
from pathlib import Path

import pytest

from peerloom.services.llm.models import MODELS


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PEERLOOM_CACHE", str(tmp_path))
    return tmp_path


def test_models_are_listed(peerloom) -> None:
    ended = peerloom("models", "list")
    assert ended.code == 0
    assert "smollm2-135m" in ended.out
    assert "Apache-2.0" in ended.out


def test_models_as_json(peerloom, own_cache: Path) -> None:
    (listed,) = json.loads(peerloom("models", "list", "--json").out)
    assert (listed["name"], listed["pulled"]) == ("smollm2-135m", False)
    assert listed["path"].startswith(str(own_cache))


def test_a_model_that_is_here_is_not_pulled_again(peerloom) -> None:
    path = MODELS["smollm2-135m"].path
    path.parent.mkdir(parents=True)
    path.write_bytes(b"GGUF")
    assert peerloom("models", "pull", "smollm2-135m").out == f"{path}\n"
    assert json.loads(peerloom("models", "pull", "smollm2-135m", "--json").out)["path"] == str(path)


def test_an_unknown_model_is_refused_with_the_nearest(peerloom) -> None:
    ended = peerloom("models", "pull", "smollm-135m")
    assert ended.code == 2
    assert "did you mean smollm2-135m?" in ended.err
