from collections.abc import Callable

from peerloom.agents.function import FunctionAgent
from peerloom.events import Hooks, Notice, Progress, RunStarted, Starting
from peerloom.services.llm.scripted import ScriptedService
from peerloom.testing import Finished
from peerloom.workflow import Sequence


def test_a_hook_that_fails_is_dropped_and_told_of(run_workflow: Callable[..., Finished]) -> None:
    notices: list[str] = []

    class Broken(Hooks):
        def progress(self, event: Progress) -> None:
            raise ValueError("no display")

    class Listening(Hooks):
        def notice(self, event: Notice) -> None:
            notices.append(event.text)

    agents = {"one": FunctionAgent(lambda task: 1)}
    done = run_workflow(Sequence("one"), agents, [{}], hooks=[Broken(), Listening()])
    assert done.summary["outcomes"] == {"completed": 1}
    assert [text for text in notices if "Broken.progress" in text] == [
        "Broken.progress failed and is no longer called: ValueError('no display')"
    ]


def test_the_steps_of_the_start_are_told_before_the_run_begins(run_workflow: Callable[..., Finished]) -> None:
    told: list[str] = []

    class Service(ScriptedService):
        step = "loading the model"

    class Listening(Hooks):
        def starting(self, event: Starting) -> None:
            told.append(event.step)

        def run_started(self, event: RunStarted) -> None:
            told.append("started")

    agents = {"one": FunctionAgent(lambda task: 1)}
    run_workflow(Sequence("one"), agents, [{}], llm=Service([]), hooks=[Listening()])
    assert told == ["loading the model", "started"]
