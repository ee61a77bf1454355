"""Programs that do next to nothing, to see what tasks and turns themselves cost."""

from dataclasses import dataclass

from benchmarks.workloads.texts import text
from peerloom.agents.function import FunctionAgent
from peerloom.agents.llm import LLMAgent
from peerloom.runtime.program import Program
from peerloom.services.llm.simulated.prose import prose
from peerloom.task import Task, Turn
from peerloom.workflow import Loop, Sequence

TURN = 1_000  # characters
WORDS = prose(64 * 1024, 1)


def one_turn() -> Program:
    """Return a program with tasks of one turn."""
    return Program(Sequence("agent"), {"agent": FunctionAgent(count)})


def one_call() -> Program:
    """Return a program with tasks of one call of the model."""
    return Program(Sequence("agent"), {"agent": LLMAgent("{{ input.text }}")})


def many_turns(turns: int) -> Program:
    """Return two agents that say a kilobyte each, in turn."""
    return _dialogue(turns, FunctionAgent(Speaker(TURN).act))


def talk(turns: int, size: int, texts: str) -> Program:
    """Return two agents that say so many characters in turn, which compress as real text does."""
    return _dialogue(turns, FunctionAgent(Talker(size, texts).act))


def _dialogue(turns: int, agent: FunctionAgent) -> Program:
    loop = Loop("one", "other", until=never, max_rounds=max(1, turns // 2))
    return Program(loop, {"one": agent, "other": agent})


@dataclass(frozen=True)
class Speaker:
    """Says a text of that many characters, another one each time."""

    size: int

    def act(self, task: Task) -> Turn:
        """Return its turn."""
        start = (task.seed + 7_919 * task.header.hop) % (len(WORDS) // 2)
        text = (WORDS[start:] * (1 + self.size // len(WORDS)))[: self.size]
        return Turn(agent="", message={"role": "user", "content": text})


@dataclass(frozen=True)
class Talker:
    """Says a text made of the words of a file, or of our own; another one each time."""

    size: int
    texts: str

    def act(self, task: Task) -> Turn:
        """Return its turn."""
        content = text(self.size, task.seed << 8 | task.header.hop, self.texts)
        return Turn(agent="", message={"role": "user", "content": content})


def count(task: Task) -> int:
    """Return the number of the row."""
    return task.id.row


def never(task: Task) -> bool:
    """Return False: the dialogue goes on."""
    return False
