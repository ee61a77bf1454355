"""Anthropic's Messages API.

Instructions stand apart from the messages, tool calls and their results are blocks of the content, and
every request states its token limit. A schema is asked as the input of a tool that must be called, which
every model can, and for any schema; with tools of the agent's own, or while the model thinks, as a format.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import orjson

from peerloom.errors import ContentFiltered, LLMDenied, LLMError, LLMRejected
from peerloom.options import FREE, SAME, Count, Options
from peerloom.services.llm.base import ChatReply, ChatRequest, EmbedReply, EmbedRequest
from peerloom.services.llm.providers.dialect import Post, Provider
from peerloom.services.llm.providers.messages import (
    Part,
    arguments,
    conversation,
    extra_of,
    instructions,
    media,
    merged,
    parts,
    tool_call,
)
from peerloom.services.llm.providers.openai import ids_in
from peerloom.services.llm.retry import Retryable
from peerloom.services.llm.wire_format.chat import (
    accepted,
    choice_schema,
    count,
    group,
    groups,
    message_of,
    text_or_nothing,
    unwrap,
)
from peerloom.services.llm.wire_format.failures import failure_of, worded
from peerloom.services.llm.wire_format.finish_reasons import finish_reason
from peerloom.services.llm.wire_format.payloads import MalformedBody
from peerloom.services.secret import Secret
from peerloom.task import Usage

ANTHROPIC = Provider("https://api.anthropic.com", "ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY", dropped="/v1")

AnthropicStructured = Literal["auto", "tool", "json_schema", "none"]
"""How choices and schemas are asked for: `tool` (a tool that must be called), `json_schema` (an output
format), `auto` (a tool where one can be forced, else a format), `none` (not at all)."""

_ANSWER = "answer"  # the tool that is forced, and the key around what is no object
_TOOL_TOKENS = 64  # what the call around a short answer may cost
_NO_CREDIT = "credit balance is too low"
_FILTERED = "content filtering policy"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnthropicDialect(Options):
    """How Anthropic is asked."""

    structured: Annotated[AnthropicStructured, FREE] = "auto"
    """How choices and schemas are asked of the model."""
    max_tokens: Annotated[Count, SAME] = 4096
    """The longest reply, where the agent says nothing else: each request has to say it."""
    extra_body: Annotated[dict[str, Any], SAME] = field(default_factory=dict[str, Any])
    """Further keys of every body, e.g. `thinking`."""

    @property
    def provider(self) -> Provider:
        """Anthropic, unless another address is given."""
        return ANTHROPIC

    @property
    def models_path(self) -> str:
        """All on one page."""
        return "/v1/models?limit=1000"

    def model_path(self, model: str) -> str | None:
        """It knows names that are not in the list."""
        return f"/v1/models/{model}"

    def listed(self, payload: Any) -> list[str] | None:
        """The ids, in OpenAI's form."""
        return ids_in(payload)

    def probe(self, model: str) -> Post:
        """A message without content."""
        return Post("/v1/messages", b"{}", {})

    @property
    def constraint(self) -> str:
        """Not observed: there is one server of this kind."""
        return ""

    def alternatives(self) -> tuple[()]:
        """None."""
        return ()

    def auth(self, key: Secret) -> dict[str, str]:
        """The key in a header of its own."""
        return {"x-api-key": key.reveal()}

    def chat(self, request: ChatRequest, model: str) -> Post:
        """A message. A seed has no place in it."""
        if request.top_logprobs is not None:
            raise LLMRejected("Anthropic gives no log-probabilities: leave out top_logprobs")
        way = self._way(request)
        limit = request.max_tokens or self.max_tokens
        body: dict[str, Any] = {
            "model": model,
            "max_tokens": limit + (_TOOL_TOKENS if way == "tool" else 0),
            "messages": _messages(request),
        }
        for name, value in (
            ("system", instructions(request.messages) or None),
            ("temperature", request.temperature),
            ("top_p", request.top_p),
            ("stop_sequences", list(request.stop) or None),
        ):
            if value is not None:
                body[name] = value
        if request.tools:
            body |= _tools(request)
        if way == "tool":
            body["tools"] = [{"name": _ANSWER, "input_schema": _object_schema(request)}]
            body["tool_choice"] = {"type": "tool", "name": _ANSWER}
        elif way == "json_schema":
            body["output_config"] = {"format": {"type": "json_schema", "schema": _object_schema(request)}}
        body = merged(body, self.extra_body)
        return Post("/v1/messages", orjson.dumps(body), {"anthropic-version": "2023-06-01"})

    def reply(self, payload: Any, request: ChatRequest, seconds: float) -> ChatReply:
        """The blocks sorted by kind; the forced tool's input is the text."""
        way, answer = self._way(request), group(payload)
        if not isinstance(answer.get("content"), list):
            raise MalformedBody("it has no content blocks")
        read = _Blocks(groups(answer["content"]), way == "tool")
        text = read.text
        if way in ("tool", "json_schema"):
            text = _unwrapped(text, request)
        reason = "end_turn" if read.forced else answer.get("stop_reason")
        return accepted(
            ChatReply(
                text=text,
                finish_reason=finish_reason(reason, called=bool(read.calls)),
                usage=_usage(group(answer.get("usage"))),
                model=text_or_nothing(answer.get("model")),
                seconds=seconds,
                message=message_of(text, read.calls),
                reasoning=read.reasoning,
                tool_calls=read.calls,
            ),
            str(reason),
        )

    def embed(self, request: EmbedRequest, model: str) -> Post:
        """There are none."""
        raise LLMRejected("Anthropic has no embeddings: use another service for them")

    def vectors(self, payload: Any, request: EmbedRequest, seconds: float) -> EmbedReply:
        """There are none."""
        raise MalformedBody("Anthropic has no embeddings")

    def failure(
        self, status: int, headers: Mapping[str, str], body: bytes, now: float
    ) -> Retryable | LLMError:
        """What OpenAI's statuses mean, but for three that are told by their words."""
        words = worded(status, body)
        if _NO_CREDIT in words:
            return LLMDenied(words)
        if status == 400 and _FILTERED in words:
            return ContentFiltered(words)
        return failure_of(status, headers, body, now)

    def _way(self, request: ChatRequest) -> AnthropicStructured:
        """How this request's answer is constrained."""
        if not request.choices and request.schema is None:
            return "none"
        thinking = group(self.extra_body.get("thinking"))
        free = thinking.get("type", "disabled") != "disabled" or bool(request.tools)
        if self.structured == "auto":
            return "json_schema" if free else "tool"
        return self.structured


DIALECT = AnthropicDialect


class _Blocks:
    """The content of a message: its text, thoughts and tool calls."""

    def __init__(self, blocks: list[Part], forced: bool) -> None:
        thoughts = [block for block in blocks if block.get("type") in ("thinking", "redacted_thinking")]
        used = [block for block in blocks if block.get("type") == "tool_use"]
        self.reasoning = "\n\n".join(text_or_nothing(block.get("thinking")) for block in thoughts).strip()
        self.text = "".join(text_or_nothing(block.get("text")) for block in blocks if block not in thoughts)
        answers = [block.get("input") for block in used if forced and block.get("name") == _ANSWER]
        self.forced = bool(answers)
        if answers:
            self.text, used = orjson.dumps(answers[0]).decode(), []
        # Thoughts before a call must be sent back with it, as they were signed.
        extras = [{"anthropic": thoughts} if thoughts and not place else None for place in range(len(used))]
        self.calls = [
            tool_call(block.get("id"), block.get("name"), block.get("input"), extra)
            for block, extra in zip(used, extras, strict=True)
        ]


def _messages(request: ChatRequest) -> list[dict[str, Any]]:
    """The conversation; neighbours of one role are one message: all results of calls must be together."""
    messages: list[dict[str, Any]] = []
    for message in conversation(request.messages):
        role = "assistant" if message["role"] == "assistant" else "user"
        blocks = _blocks(message)
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += blocks
        elif blocks:
            messages.append({"role": role, "content": blocks})
    return messages


def _blocks(message: dict[str, Any]) -> list[Part]:
    content = [_block(part) for part in parts(message.get("content")) if part != {"type": "text", "text": ""}]
    if message["role"] == "tool":
        return [{"type": "tool_result", "tool_use_id": message.get("tool_call_id"), "content": content}]
    calls = groups(message.get("tool_calls"))
    signed = [block for blocks in extra_of(calls, "anthropic") for block in blocks or ()]
    used = [
        {"type": "tool_use", "id": call["id"], "name": call["function"]["name"], "input": arguments(call)}
        for call in calls
    ]
    return [*signed, *content, *used]


def _block(part: Part) -> Part:
    found = media(part)
    if found is None:
        return part  # a text, or a block in Anthropic's own form
    if not found.mime.startswith("image/"):
        raise LLMRejected(f"Anthropic takes no {found.mime} in a prompt")
    if found.url:
        return {"type": "image", "source": {"type": "url", "url": found.url}}
    source = {"type": "base64", "media_type": found.mime, "data": found.base64}
    return {"type": "image", "source": source}


def _tools(request: ChatRequest) -> dict[str, Any]:
    tools: list[Part] = []
    for tool in request.tools:
        function = tool["function"]
        schema = function.get("parameters") or {"type": "object"}
        described = {"description": function["description"]} if function.get("description") else {}
        tools.append({"name": function["name"], **described, "input_schema": schema})
    choice = {"": None, "required": {"type": "any"}, "auto": {"type": "auto"}, "none": {"type": "none"}}
    chosen = choice.get(request.tool_choice, {"type": "tool", "name": request.tool_choice})
    return {"tools": tools, "tool_choice": chosen} if chosen else {"tools": tools}


def _object_schema(request: ChatRequest) -> dict[str, Any]:
    """What is asked for, as the schema of an object."""
    if request.choices or request.schema is None:
        return choice_schema(request.choices)
    if request.schema.get("type") == "object":
        return request.schema
    return {
        "type": "object",
        "properties": {_ANSWER: request.schema},
        "required": [_ANSWER],
        "additionalProperties": False,
    }


def _unwrapped(text: str, request: ChatRequest) -> str:
    if request.choices:
        return unwrap(text, request.choices)
    if request.schema is None or request.schema.get("type") == "object":
        return text
    try:
        return orjson.dumps(orjson.loads(text)[_ANSWER]).decode()
    except (orjson.JSONDecodeError, KeyError, IndexError, TypeError):
        return text


def _usage(usage: dict[str, Any]) -> Usage:
    cached = count(usage.get("cache_read_input_tokens"))
    prompt = count(usage.get("input_tokens")) + count(usage.get("cache_creation_input_tokens")) + cached
    return Usage(prompt, count(usage.get("output_tokens")), cached, 1)
