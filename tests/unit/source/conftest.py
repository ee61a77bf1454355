"""Fixtures for tests of sources: no test reaches a hub, or leaves anything in a cache."""

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import fsspec
import pytest


@pytest.fixture(scope="session", autouse=True)
def hub_at_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hub")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
        yield


@pytest.fixture
def datasets() -> Any:
    """The library, imported after its environment is set."""
    return import_module("datasets")


@pytest.fixture
def bucket() -> Iterator[str]:
    """A URL below which files can be written; it is empty again afterwards."""
    store = fsspec.filesystem("memory")
    yield "memory://bucket"
    store.store.clear()
    store.pseudo_dirs[:] = [""]
