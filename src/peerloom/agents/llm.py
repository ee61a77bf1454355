"""An agent that asks a language model: prompt, one or more calls, an answer that was read.

The messages of a call are, in this order: `system`, `opening`, `examples`, the dialogue so far, `prompt`.
What is common to all calls about a task comes first, so that a server which keeps prompt prefixes in
its cache evaluates only what is new; what this role has to do comes last. A reply that is no answer
is shown to the model with what is wrong with it, and asked again.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, Literal

from peerloom.agents.answers import Answer, Choice, FreeText, Json, Parsed, whole_sentences
from peerloom.agents.base import Services
from peerloom.agents.prompts import Prompt, as_prompt
from peerloom.errors import AnswerError, ConfigError, ContentFiltered, OutputTruncated, PromptError
from peerloom.services.llm.base import ChatReply, ChatRequest
from peerloom.task import Task, Turn

Message = dict[str, Any]
Template = str | Path | Prompt


@dataclass(eq=False)
class LLMAgent:
    """One role that a language model plays.

    Templates are Jinja: a string is the template, a `Path` the file it is in. Instead of templates, a
    subclass may define `messages(task)`.

    Raises:
        ConfigError: for a template, schema or combination that cannot work.
    """

    prompt: Template = ""
    """The last user message: what this role has to do now."""
    _: KW_ONLY
    system: Template = ""
    """The system message."""
    opening: Template = ""
    """The first user message: what the task is about, best the same for all roles."""
    examples: Sequence[tuple[str, str]] = ()
    """Worked examples, as they are: what is asked, and the reply to it."""
    dialogue: bool = False
    """Put what was said so far before the prompt, seen from this role."""
    say: Literal["assistant", "user"] | None = "assistant"
    """The chat role of the reply among the row's messages; None says nothing aloud."""
    choices: Sequence[str] | Callable[[Task], Sequence[str]] | None = None
    """The only answers there are, or a function of the task that lists them."""
    schema: dict[str, Any] | None = None
    """The JSON schema the answer follows."""
    parse: Callable[[str], Any] | None = None
    """Reads the answer out of the reply; raises ValueError to have it asked again."""
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    on_length: Literal["truncated", "trim"] = "truncated"
    """A reply cut by `max_tokens` ends the task as truncated; or is trimmed to whole sentences."""
    retries: int = 2
    """How often a reply that is no answer is asked again."""

    def __post_init__(self) -> None:
        if sum(kind is not None for kind in (self.choices, self.schema, self.parse)) > 1:
            raise ConfigError("LLMAgent takes one of choices, schema and parse, not several")
        templated = type(self).messages is LLMAgent.messages
        if templated and not (self.prompt or self.opening):
            raise ConfigError(
                "LLMAgent has nothing to ask: give a prompt, or define messages() in a subclass"
            )
        self._system, self._opening, self._prompt = (
            as_prompt(template, name) if template else None
            for template, name in (
                (self.system, "system"),
                (self.opening, "opening"),
                (self.prompt, "prompt"),
            )
        )
        self._examples = [
            {"role": role, "content": text}
            for example in self.examples
            for role, text in zip(("user", "assistant"), example, strict=True)
        ]
        self._answer = self._kind()

    def messages(self, task: Task) -> list[Message]:
        """The chat messages that ask for this role's turn.

        Raises:
            PromptError: if a template fails on this task.
        """
        messages: list[Message] = []
        if self._system:
            messages.append({"role": "system", "content": self._system.render(task)})
        if self._opening:
            messages.append({"role": "user", "content": self._opening.render(task)})
        messages += self._examples
        if self.dialogue:
            messages += dialogue(task)
        if self._prompt:
            messages.append({"role": "user", "content": self._prompt.render(task)})
        return merge(messages)

    async def act(self, task: Task, services: Services) -> Turn:
        """Ask until there is an answer.

        Raises:
            AnswerError: if none of `1 + retries` replies is one.
            OutputTruncated: if a reply was cut by the token limit; see `on_length`.
            ContentFiltered: if the provider withheld a reply.
            LLMError: what the service raises.
        """
        question = messages = self.messages(task)
        answer = self._answer or self._choice(task)
        problem, text = "", ""
        for call in range(1 + self.retries):
            reply = await services.llm.chat(self._request(task, messages, answer, call))
            try:
                return self._turn(reply, answer)
            except ValueError as error:
                problem, text = str(error), reply.text.strip()[:_SHOWN]
                again = {"role": "user", "content": f"That reply cannot be used: {problem}."}
                messages = merge([*question, {"role": "assistant", "content": text}, again])
        raise AnswerError(f"{1 + self.retries} replies, none usable; the last one, {text!r}: {problem}")

    def _request(self, task: Task, messages: list[Message], answer: Answer, call: int) -> ChatRequest:
        return ChatRequest(
            messages=messages,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            stop=self.stop,
            choices=answer.choices,
            schema=answer.schema,
            seed=_seed(task, call),
            session=str(task.id),
            role=task.next_role,
        )

    def _turn(self, reply: ChatReply, answer: Answer) -> Turn:
        """The turn that a reply makes; ValueError if the reply is no answer."""
        if reply.finish_reason == "content_filter":
            raise ContentFiltered("the provider withheld the reply")
        text = reply.text.strip()
        if reply.finish_reason == "length":
            text = self._cut(reply, text, answer)
        value = answer.read(text)
        if self.say:
            said = {"role": self.say, "content": text}
            return Turn(agent="", message=said, value=value, finish_reason=reply.finish_reason)
        return Turn(agent="", value=text if value is None else value, finish_reason=reply.finish_reason)

    def _cut(self, reply: ChatReply, text: str, answer: Answer) -> str:
        """What remains of a reply that the token limit ended. A whole choice or JSON value is one."""
        exact = bool(answer.choices or answer.schema)
        if self.on_length == "trim":
            return text if exact else whole_sentences(text)
        with suppress(ValueError):
            if exact:
                answer.read(text)
                return text
        limit = f"max_tokens={self.max_tokens}" if self.max_tokens else "the server's limit"
        raise OutputTruncated(f"the reply was cut after {reply.usage.completion} tokens, by {limit}")

    def _kind(self) -> Answer | None:
        """The kind of answer, or None where it depends on the task."""
        if callable(self.choices):
            return None
        if self.choices is not None:
            return Choice(self.choices)
        if self.schema is not None:
            return Json(self.schema)
        return Parsed(self.parse) if self.parse else FreeText()

    def _choice(self, task: Task) -> Answer:
        choices = self.choices(task) if callable(self.choices) else ()
        if not choices:
            raise PromptError(f"the choices of {task.next_role!r} are empty for this row")
        return Choice(choices)


def dialogue(task: Task) -> list[Message]:
    """What was said so far, as the role that acts now sees it: its own turns as assistant, others as user."""
    return [
        {"role": "assistant" if turn.agent == task.next_role else "user", "content": turn.text}
        for turn in task.turns
        if turn.text
    ]


def merge(messages: Sequence[Message]) -> list[Message]:
    """The same messages with neighbours of one role made one, as many chat templates demand."""
    merged: list[Message] = []
    for message in messages:
        if merged and merged[-1]["role"] == message["role"]:
            parts = (merged[-1]["content"], message["content"])
            merged[-1] = {"role": message["role"], "content": "\n\n".join(part for part in parts if part)}
        elif message["content"]:
            merged.append(message)
    return merged


def _seed(task: Task, call: int) -> int:
    """A seed of its own for each call of each turn, the same in every process: 31 bits of splitmix64."""
    mixed = (task.seed + (task.header.hop * _CALLS + call + 1) * 0x9E3779B97F4A7C15) & _64_BITS
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & _64_BITS
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & _64_BITS
    return (mixed ^ mixed >> 31) >> 33


_SHOWN = 2000  # characters of an unusable reply that the model sees again
_CALLS = 1024  # more than one turn ever makes
_64_BITS = (1 << 64) - 1
