"""The steps of mini-coral for distilabel: a task that is one call of the dialogue, and a match."""

import sys
from pathlib import Path
from typing import Any

from distilabel.steps import Step, StepInput
from distilabel.steps.tasks import Task

sys.path.insert(0, str(Path(__file__).parents[1] / "common"))
import work


class Call(Task):
    """One of the six calls."""

    number: int
    path: str

    @property
    def inputs(self):
        return ["question", "options", *(f"said{n}" for n in range(self.number))]

    @property
    def outputs(self):
        return [f"said{self.number}"]

    def format_input(self, input: dict[str, Any]):
        spec = work.Spec(self.path) if not hasattr(Call, "spec_") else Call.spec_
        Call.spec_ = spec
        turn, reads = divmod(self.number, 2)
        if reads:
            return work.extract(spec, input[f"said{self.number - 1}"])
        statements = [(who, input[f"said{2 * n}"]) for n, who in enumerate(work.SPEAKERS[:turn])]
        return work.speak(spec, input, work.SPEAKERS[turn], statements)

    def format_output(self, output, input=None):
        return {f"said{self.number}": output}


class Match(Step):
    """What an extractor's words mean."""

    number: int
    path: str

    @property
    def inputs(self):
        return [f"said{self.number}"]

    @property
    def outputs(self):
        return [f"letter{self.number}"]

    def process(self, inputs: StepInput):
        spec = work.Spec(self.path)
        for row in inputs:
            row[f"letter{self.number}"] = work.letter(spec, row[f"said{self.number}"] or "") or ""
        yield inputs
