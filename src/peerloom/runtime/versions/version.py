"""Return the version of a program: its description and the digest of it."""

from collections.abc import Iterator
from types import FunctionType
from typing import Any

from peerloom.runtime.program import Program
from peerloom.runtime.versions.describe import Describer
from peerloom.sink.rundir.versions import ProgramVersion, digest_of

_AGENT = "agent "
_PASSES = 3  # each may find values that functions change, which the next one leaves out


def version_of(program: Program) -> ProgramVersion:
    """Describe the workflow, the agents, and the functions that they use.

    The description is the same in every process. Values that functions change are no part of it.
    """
    own, changed = frozenset(_packages(program)), set[Any]()
    describer = _described(program, Describer(own, changed))
    for _ in range(_PASSES):
        known = len(changed)
        describer = _described(program, Describer(own, changed))
        if len(changed) == known:
            break
    prompts = {name.removeprefix(_AGENT): digest_of(texts) for name, texts in describer.prompts.items()}
    return ProgramVersion(describer.parts, list(describer.uncovered), sorted(describer.packages), prompts)


def _described(program: Program, describer: Describer) -> Describer:
    describer.describe("workflow", program.workflow)
    for role, agent in program.agents.items():
        describer.describe(f"{_AGENT}{role}", agent)
    if program.check_row is not None:
        describer.describe("check_row", program.check_row)
    return describer


def _packages(program: Program) -> Iterator[str]:
    """Yield the top-level names of the packages that the program is from."""
    for each in (program.workflow, *program.agents.values()):
        values = [type(each), *getattr(each, "__dict__", {}).values()]
        for value in (*values, program.check_row):
            if isinstance(value, type | FunctionType):
                yield str(value.__module__).partition(".")[0]
