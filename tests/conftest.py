"""Fixtures for every test."""

import os
from collections.abc import Iterator

import pytest

FROM_OUTSIDE = ("OPENAI_", "AZURE_OPENAI_", "ANTHROPIC_", "GEMINI_", "GOOGLE_", "PEERLOOM_", "RAY_ADDRESS")


@pytest.fixture(scope="session", autouse=True)
def clean_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No developer's key, server, cluster or configuration reaches a test or a process it starts.

    For the whole session, so that it comes before any other fixture. The cache of model weights stays
    the developer's: it is checked by its checksum and expensive to fill.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(FROM_OUTSIDE):
                patch.delenv(name)
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        yield
