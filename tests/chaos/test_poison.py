"""Some tasks kill the process they are in: they fail, and no other task with them."""

import asyncio
from pathlib import Path

import pytest
from programs import poisonous

from peerloom.services.llm.simulated.service import SimulatedService
from peerloom.testing import execute

pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]

POISON = {30, 31, 150}


@pytest.mark.parametrize(("placement", "journal"), [("spread", True), ("packed", False)])
async def test_three_of_two_hundred_are_poison(placement: str, journal: bool, tmp_path: Path) -> None:
    rows = [{"poison": number in POISON} for number in range(200)]
    async with asyncio.timeout(120):
        done = await execute(
            poisonous(),
            rows,
            SimulatedService(),
            tmp_path / "run",
            engine="ray",
            placement=placement,
            in_flight=40,
            journal=journal,
        )
    failed = {row["row"] if "row" in row else int(row["id"].split("-")[1]): row for row in done.rows}
    failed = {number: row for number, row in failed.items() if row["outcome"] == "failed"}
    assert failed.keys() == POISON
    assert {row["reason"] for row in failed.values()} == {"poison"}
    assert all("alone" in row["detail"] for row in failed.values())
    assert done.summary["outcomes"] == {"completed": 197, "failed": 3}
