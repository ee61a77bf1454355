from pathlib import Path

import pytest
from sink_helpers import make_folders


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return make_folders(tmp_path / "run")
