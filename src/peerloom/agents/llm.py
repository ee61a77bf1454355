"""Define agents that prompt a language model and read an answer from its reply.

The messages of a call are, in this order: `system`, `opening`, `examples`, the dialogue so far, `prompt`.
Messages common to all calls of a task come first, so that a server with a prefix cache evaluates only the new
ones; the instruction of this role comes last. A reply that is not an answer is repaired if its intended value
is clear. Otherwise the model is asked again, with its reply and the problem added to the messages. With
`tools`, a reply may also call tools: the turn's value is then the list of calls.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import orjson

from peerloom.agents.answers import Answer, Choice, FreeText, Json, Parsed, whole_sentences
from peerloom.agents.base import Services
from peerloom.agents.messages import Message, dialogue, merge
from peerloom.agents.prompts import Prompt, as_prompt
from peerloom.agents.toolcalls import Tools
from peerloom.errors import AnswerError, ConfigError, ContentFiltered, OutputTruncated, PromptError
from peerloom.services.llm.base import ChatReply, ChatRequest
from peerloom.task import Extras, Task, Turn
from peerloom.terminal.printable import is_blank

Template = str | Path | Prompt


class _Rendered(NamedTuple):
    """The rendered templates of an agent, each as a list of at most one message."""

    system: list[Message]
    opening: list[Message]
    prompt: list[Message]


@dataclass(eq=False)
class LLMAgent:
    """A role played by a language model.

    Templates are Jinja: a string is the template itself, a `Path` the file of the template. Instead of using
    templates, a subclass may define `messages(task)`.

    Raises:
        ConfigError: for an invalid template, schema or combination of options.
    """

    prompt: Template = ""
    """The last user message: the instruction of this role."""
    _: KW_ONLY
    system: Template = ""
    """The system message."""
    opening: Template = ""
    """The first user message: the subject of the task, ideally the same for all roles."""
    examples: Sequence[tuple[str, str]] = ()
    """Worked examples: pairs of a prompt and its reply, used literally."""
    dialogue: bool = False
    """Whether the turns so far are put before the prompt, from the point of view of this role."""
    chat_role: Literal["assistant", "user"] | None = "assistant"
    """Whose the replies are in the row's conversation: those of the model to be trained, or of its user. None
    leaves them out of the dialogue."""
    choices: Sequence[str] | Callable[[Task], Sequence[str]] | None = None
    """The allowed answers, or a function of the task that returns them."""
    schema: dict[str, Any] | None = None
    """The JSON schema of the answer."""
    parse: Callable[[str], Any] | None = None
    """A function that returns the answer in a reply, or raises ValueError to ask again."""
    parts: Callable[[Task], Sequence[dict[str, Any]]] | None = None
    """A function that returns images or recordings to send with the prompt, as OpenAI's content parts."""
    tools: Sequence[dict[str, Any]] = ()
    """OpenAI function tools that the model may call."""
    tool_choice: str = ""
    """`auto`, `none`, `required` or the name of the tool that must be called; default the server's choice."""
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    top_logprobs: int | None = None
    """Keep the log-probability of each token, and those of this number of alternatives."""
    on_length: Literal["truncated", "trim"] = "truncated"
    """Whether a reply cut by `max_tokens` ends the task as truncated, or is trimmed to whole sentences."""
    retries: int = 2
    """How often the model is asked again after a reply that is not an answer."""

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
        self._tools = Tools(self.tools, self.tool_choice)
        self._answer = self._fixed_answer()

    def program_state(self) -> dict[str, Any]:
        """Return the options that differ from their defaults, for the version of the program."""
        given = {
            each.name: getattr(self, each.name)
            for each in fields(self)
            if getattr(self, each.name) != each.default
        }
        further = {name: value for name, value in vars(self).items() if name not in _DERIVED}
        templates = {"system": self._system, "opening": self._opening, "prompt": self._prompt}
        return further | given | {name: text for name, text in templates.items() if text is not None}

    def messages(self, task: Task) -> list[Message]:
        """Return the chat messages that prompt this role.

        Raises:
            PromptError: if a template fails on this task.
        """
        return self._assemble(task, self._render(task))

    def _render(self, task: Task) -> _Rendered:
        return _Rendered(
            _system_message(self._system, task),
            _user_message(self._opening, task),
            _user_message(self._prompt, task),
        )

    def _assemble(self, task: Task, rendered: _Rendered) -> list[Message]:
        messages = [*rendered.system, *rendered.opening, *self._examples]
        if self.dialogue:
            messages += dialogue(task)
        messages += rendered.prompt
        if self.parts is not None and (parts := list(self.parts(task))):
            messages.append({"role": "user", "content": parts})
        return merge(messages)

    def _context(self, task: Task, rendered: _Rendered) -> tuple[Message, ...]:
        """Return the messages that precede the reply in a conversation, besides those of other roles."""
        is_first, is_addressed = True, False
        for turn in reversed(task.turns):
            if turn.agent == task.next_role and turn.message is not None:
                is_first = False
                break
            is_addressed = is_addressed or turn.message is not None
        context = [*rendered.system, *rendered.opening] if is_first else []
        if not self.dialogue:
            context += rendered.prompt or ([] if is_first else rendered.opening)
        elif not is_addressed and not (is_first and rendered.opening):
            context += rendered.prompt
        return tuple(merge(context))

    async def act(self, task: Task, services: Services) -> Turn:
        """Call the model until a reply is an answer.

        Raises:
            PromptError: if a template fails on this task, or the prompt is empty.
            AnswerError: if none of `1 + retries` replies is an answer.
            OutputTruncated: if a reply was cut by the token limit; see `on_length`.
            ContentFiltered: if the provider withheld a reply.
            LLMError: if the service raises it.
        """
        rendered = None
        if type(self).messages is LLMAgent.messages:
            rendered = self._render(task)
            prompt = self._assemble(task, rendered)
        else:
            prompt = self.messages(task)
        messages = prompt = _nonempty(prompt, task)
        answer = self._answer or self._choice(task)
        problem, text = "", ""
        for call in range(1 + self.retries):
            reply = await services.llm.chat(self._request(task, messages, answer, call))
            try:
                turn = self._turn(reply, answer)
            except ValueError as error:
                problem, text = str(error), _shown(reply)
                feedback = {"role": "user", "content": f"That reply cannot be used: {problem}."}
                messages = merge([*prompt, {"role": "assistant", "content": text}, feedback])
            else:
                if turn.message is None or rendered is None:
                    return turn
                context = self._context(task, rendered)
                return msgspec.structs.replace(turn, context=context, context_only=not self.dialogue)
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
            tools=tuple(self.tools),
            tool_choice=self.tool_choice,
            top_logprobs=self.top_logprobs,
            seed=_seed(task, call),
            session=str(task.id),
            role=task.next_role,
        )

    def _turn(self, reply: ChatReply, answer: Answer) -> Turn:
        """Return the turn of a reply, or raise ValueError if the reply is not an answer."""
        if reply.finish_reason == "content_filter":
            raise ContentFiltered("the provider withheld the reply")
        if self.tools and reply.tool_calls:
            return self._tool_turn(reply)
        if self._tools.required:
            raise self._tools.missing() if reply.finish_reason != "length" else self._truncated(reply)
        text, repaired = reply.text.strip(), False
        if reply.finish_reason == "length":
            text = self._cut(reply, text, answer)
        try:
            value = answer.read(text)
        except ValueError as error:
            if reply.finish_reason == "length":
                raise
            value, repaired = _repaired(answer, text, error), True
        message = {"role": self.chat_role, "content": text} if self.chat_role else None
        return Turn(
            agent="",
            message=message,
            value=text if value is None and message is None else value,
            finish_reason=reply.finish_reason,
            extras=_extras(reply, repaired),
        )

    def _tool_turn(self, reply: ChatReply) -> Turn:
        """Return the turn of a reply that calls tools; its message includes the text beside the calls."""
        complete = reply.finish_reason != "length"
        try:
            calls = self._tools.read(reply.tool_calls, repair=complete)
        except ValueError:
            if complete:
                raise
            raise self._truncated(reply) from None
        message = {"role": self.chat_role, "content": reply.text.strip() or None, "tool_calls": calls.message}
        return Turn(
            agent="",
            message=message if self.chat_role else None,
            value=calls.value,
            finish_reason=reply.finish_reason,
            extras=_extras(reply, calls.repaired),
        )

    def _cut(self, reply: ChatReply, text: str, answer: Answer) -> str:
        """Return the usable part of a truncated reply; a complete choice or JSON value is accepted."""
        exact = bool(answer.choices or answer.schema)
        if self.on_length == "trim":
            return text if exact else whole_sentences(text)
        with suppress(ValueError):
            if exact:
                answer.read(text)
                return text
        raise self._truncated(reply)

    def _truncated(self, reply: ChatReply) -> OutputTruncated:
        limit = f"max_tokens={self.max_tokens}" if self.max_tokens else "the server's limit"
        return OutputTruncated(f"the reply was cut after {reply.usage.completion} tokens, by {limit}")

    def _fixed_answer(self) -> Answer | None:
        """Return the kind of answer, or None if it depends on the task."""
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


def _system_message(template: Prompt | None, task: Task) -> list[Message]:
    return [{"role": "system", "content": template.render(task)}] if template else []


def _user_message(template: Prompt | None, task: Task) -> list[Message]:
    return [{"role": "user", "content": template.render(task)}] if template else []


def _nonempty(messages: list[Message], task: Task) -> list[Message]:
    """Return the messages, or raise PromptError if all are empty or system messages."""
    for message in reversed(messages):
        content = message.get("content")
        if not content or message.get("role") in _INSTRUCTIONS:
            continue
        if not isinstance(content, str) or not is_blank(content):
            return messages
    raise PromptError(f"the prompt of {task.next_role!r} is empty for this row: there is nothing to ask")


def _repaired(answer: Answer, text: str, error: ValueError) -> Any:
    """Return the value of a refused reply after repair, or raise the original error."""
    try:
        return answer.repair(text)
    except ValueError:
        raise error from None


def _extras(reply: ChatReply, repaired: bool) -> Extras | None:
    if reply.reasoning or reply.logprobs or reply.token_ids or repaired:
        return Extras(reply.reasoning, reply.logprobs, reply.token_ids, repaired)
    return None


def _shown(reply: ChatReply) -> str:
    """Return the text and tool calls of an unusable reply, as shown to the model again."""
    called = [call.get("function") for call in reply.tool_calls]
    lines = [reply.text.strip(), *(orjson.dumps(each).decode() for each in called)]
    return "\n".join(line for line in lines if line)[:_SHOWN]


def _seed(task: Task, call: int) -> int:
    """Return a distinct seed for each call of each turn, the same in every process: 31 bits of splitmix64."""
    mixed = (task.seed + (task.header.hop * _CALLS + call + 1) * 0x9E3779B97F4A7C15) & _64_BITS
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & _64_BITS
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & _64_BITS
    return (mixed ^ mixed >> 31) >> 33


_DERIVED = frozenset(
    (
        *(each.name for each in fields(LLMAgent)),
        *("_system", "_opening", "_prompt", "_examples", "_tools", "_answer"),
    )
)
_INSTRUCTIONS = ("system", "developer")
_SHOWN = 2000  # characters of an unusable reply shown to the model again
_CALLS = 1024  # more than the calls of any turn
_64_BITS = (1 << 64) - 1
