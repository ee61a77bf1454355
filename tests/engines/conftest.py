"""Real engines: prepared by `make engines`, skipped without."""

from pathlib import Path

import pytest
from engine_tools import FOLDER


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not (FOLDER / "ready").exists():
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="needs the engines that `make engines` installs"))
