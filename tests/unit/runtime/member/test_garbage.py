import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from peerloom.agents.function import FunctionAgent
from peerloom.runtime.member.garbage import infrequent_gc
from peerloom.runtime.program import Program
from peerloom.services.llm.simulated.service import SimulatedService
from peerloom.testing import execute
from peerloom.workflow import Sequence


@pytest.fixture(autouse=True)
def _threshold() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(600, 9, 8)
    yield
    gc.set_threshold(*before)


def test_the_last_of_several_runs_gives_back_what_the_first_has_found():
    one, other = infrequent_gc(), infrequent_gc()
    one.__enter__()
    other.__enter__()
    rare = gc.get_threshold()
    one.__exit__(None, None, None)
    assert gc.get_threshold() == rare
    assert rare[0] > 600
    other.__exit__(None, None, None)
    assert gc.get_threshold() == (600, 9, 8)


async def test_a_run_in_this_process_does_so(tmp_path: Path):
    program = Program(Sequence("look"), {"look": FunctionAgent(lambda task: list(gc.get_threshold()))})
    done = await execute(program, [{}], SimulatedService(), tmp_path / "run")
    assert done.rows[0]["turns"][0]["value"][0] > 600
    assert gc.get_threshold() == (600, 9, 8)
