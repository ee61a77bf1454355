"""Some tasks kill the process they are in: they fail, and no other task with them."""

import asyncio
from pathlib import Path

import pytest
from programs import poisonous

from peerloom.services.llm.simulated.service import SimulatedService
from peerloom.testing import execute

pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]


@pytest.mark.parametrize(
    ("placement", "journal", "poison"), [("spread", True, {30, 31, 150}), ("packed", False, {30})]
)
async def test_a_few_of_two_hundred_are_poison(
    placement: str, journal: bool, poison: set[int], tmp_path: Path
) -> None:
    rows = [{"poison": number in poison} for number in range(200)]
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
    assert failed.keys() == poison
    assert {row["reason"] for row in failed.values()} == {"poison"}
    assert all("alone" in row["detail"] for row in failed.values())
    assert done.summary["outcomes"] == {"completed": 200 - len(poison), "failed": len(poison)}
