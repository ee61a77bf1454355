"""What a run commits does not depend on the engine, the placement, or how wide it is."""

from pathlib import Path
from typing import Any

import pytest
from programs import outcomes, stable, talk

from peerloom.services.llm.simulated.service import SimulatedService
from peerloom.testing import execute

ROWS = [{"n": number} for number in range(24)]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Any:
    import asyncio

    done = asyncio.run(
        execute(
            talk(),
            ROWS,
            SimulatedService(seed=5),
            tmp_path_factory.mktemp("plain") / "run",
            trials=2,
            in_flight=1,
        )
    )
    assert done.summary["outcomes"] == {"completed": 48}
    return [stable(row) for row in done.rows]


async def test_same_rows_everywhere(engine: str, placement: str, tmp_path: Path, expected: Any) -> None:
    done = await execute(
        talk(), ROWS, SimulatedService(seed=5), tmp_path / "run", engine=engine, placement=placement, trials=2
    )
    assert [stable(row) for row in done.rows] == expected


async def test_same_rows_over_partitions_shards_and_replicas(
    engine: str, tmp_path: Path, expected: Any
) -> None:
    done = await execute(
        talk(),
        ROWS,
        SimulatedService(seed=5),
        tmp_path / "run",
        engine=engine,
        placement="spread",
        trials=2,
        partitions=2,
        shards=2,
        peers=2,
    )
    assert [stable(row) for row in done.rows] == expected
    assert len(list((tmp_path / "run" / "data").iterdir())) == 2


@pytest.mark.parametrize(
    ("engine", "placement"),
    [("local", "packed"), ("local", "spread"), pytest.param("ray", "spread", marks=pytest.mark.slow)],
    indirect=True,
)
async def test_every_outcome_is_a_row_and_they_add_up(engine: str, placement: str, tmp_path: Path) -> None:
    rows = [*ROWS, {"m": 1}]
    done = await execute(
        outcomes(), rows, SimulatedService(), tmp_path / "run", engine=engine, placement=placement
    )
    assert done.summary["outcomes"] == {"completed": 12, "filtered": 6, "failed": 7}
    assert done.summary["reasons"] == {"dull": 6, "agent_error": 6, "bad_row": 1}
    assert done.summary["admitted"] == len(done.rows) == 25
    wrong = next(row for row in done.rows if row["reason"] == "agent_error")
    assert wrong["detail"].startswith("first: ZeroDivisionError: an agent's own mistake (programs.py:")
    assert done.rows[24]["detail"] == "field 'n' is missing"


async def test_figures_of_the_summary(engine: str, tmp_path: Path) -> None:
    done = await execute(talk(), ROWS, SimulatedService(seed=5), tmp_path / "run", engine=engine)
    calls = sum(row["usage"]["calls"] for row in done.rows)
    assert done.summary["llm_calls"] == calls > 0
    assert done.summary["tokens"]["completion"] == sum(row["usage"]["completion"] for row in done.rows)
    assert done.summary["agents"]["count"]["turns"] == sum(
        turn["agent"] == "count" for row in done.rows for turn in row["turns"]
    )
    assert done.summary["cpu_seconds"] > 0
