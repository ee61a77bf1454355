from collections.abc import Callable

from peerloom.agents.function import FunctionAgent
from peerloom.events import Hooks, Notice, Progress
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
