from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from curating import ROW, Curated, Reply

import peerloom
from peerloom.services.llm.scripted import ScriptedService


@pytest.fixture
def curate(tmp_path: Path) -> Callable[..., Curated]:
    def run(*replies: Reply, rows: Any = (ROW,), **params: Any) -> Curated:
        service = ScriptedService(list(replies))
        result = peerloom.run(
            "natural_reasoning", source=list(rows), llm=service, engine="local", in_flight=1,
            run_dir=tmp_path / "run", fresh=True, progress=False,
            config={f"recipe.{key}": value for key, value in params.items()},
        )  # fmt: skip
        rows = sorted(result.rows(rejected=True), key=lambda row: row["id"])
        return Curated(rows, service.requests)

    return run
