"""Encode and decode Anthropic's Messages API.

System instructions are a separate field, tool calls and their results are content blocks, and every request
has a token limit. A schema is passed as the input schema of a tool that must be called; this works with every
model and schema. If the agent has tools, or the model thinks, the schema is an output format instead.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import orjson

from peerloom.errors import ContentFiltered, LLMDenied, LLMError, LLMRejected
from peerloom.options import FREE, SAME, Count, Options
from peerloom.services.llm.base import ChatReply, ChatRequest
from peerloom.services.llm.providers.dialect import Dialect, Post, Provider
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
    given,
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
"""The option by which choices and schemas are passed: `tool` (a tool that must be called), `json_schema`
(an output format), `auto` (a tool if one can be forced, else a format), `none` (not at all)."""

_ANSWER = "answer"  # the name of the forced tool, and the key that wraps a value that is not an object
_TOOL_TOKENS = 64  # the tokens of the tool call around a short answer
_NO_CREDIT = "credit balance is too low"
_FILTERED = "content filtering policy"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnthropicDialect(Options, Dialect):
    """The dialect of Anthropic."""

    provider: ClassVar[Provider] = ANTHROPIC

    structured: Annotated[AnthropicStructured, FREE] = "auto"
    """The option by which choices and schemas are passed to the model."""
    max_tokens: Annotated[Count, SAME] = 4096
    """The token limit of agents that set none, since each request must have one."""
    extra_body: Annotated[dict[str, Any], SAME] = field(default_factory=dict[str, Any])
    """Additional keys of every body, e.g. `thinking`."""

    @property
    def models_path(self) -> str:
        """The path of the list of all models, on one page."""
        return "/v1/models?limit=1000"

    def model_path(self, model: str) -> str | None:
        """Return the path of a model's description; names that are not in the list are valid too."""
        return f"/v1/models/{model}"

    def listed(self, payload: Any) -> list[str] | None:
        """Return the ids of the models."""
        return ids_in(payload)

    def probe(self, model: str) -> Post:
        """Return a message request without content."""
        return Post("/v1/messages", b"{}", {})

    def auth(self, key: Secret) -> dict[str, str]:
        """Return the `x-api-key` header."""
        return {"x-api-key": key.reveal()}

    def chat(self, request: ChatRequest, model: str) -> Post:
        """Return a message request. Anthropic accepts no seed."""
        if request.top_logprobs is not None:
            raise LLMRejected("Anthropic gives no log-probabilities: leave out top_logprobs")
        constraint = self._constraint(request)
        limit = request.max_tokens or self.max_tokens
        body: dict[str, Any] = {
            "model": model,
            "max_tokens": limit + (_TOOL_TOKENS if constraint == "tool" else 0),
            "messages": conversation(request.messages, "assistant", "content", _blocks),
        }
        body |= given(
            system=instructions(request.messages) or None,
            temperature=request.temperature,
            top_p=request.top_p,
            stop_sequences=list(request.stop) or None,
        )
        if request.tools:
            body |= _tools(request)
        if constraint == "tool":
            body["tools"] = [{"name": _ANSWER, "input_schema": _object_schema(request)}]
            body["tool_choice"] = {"type": "tool", "name": _ANSWER}
        elif constraint == "json_schema":
            body["output_config"] = {"format": {"type": "json_schema", "schema": _object_schema(request)}}
        body = merged(body, self.extra_body)
        return Post("/v1/messages", orjson.dumps(body), {"anthropic-version": "2023-06-01"})

    def reply(self, payload: Any, request: ChatRequest, seconds: float) -> ChatReply:
        """Return the reply in a body; the input of the forced tool is its text."""
        constraint, answer = self._constraint(request), group(payload)
        if not isinstance(answer.get("content"), list):
            raise MalformedBody("it has no content blocks")
        blocks = _Blocks(groups(answer["content"]), constraint == "tool")
        text = blocks.text
        if constraint in ("tool", "json_schema"):
            text = _unwrapped(text, request)
        reason = "end_turn" if blocks.forced else answer.get("stop_reason")
        return accepted(
            ChatReply(
                text=text,
                finish_reason=finish_reason(reason, called=bool(blocks.calls)),
                usage=_usage(group(answer.get("usage"))),
                model=text_or_nothing(answer.get("model")),
                seconds=seconds,
                message=message_of(text, blocks.calls),
                reasoning=blocks.reasoning,
                tool_calls=blocks.calls,
            ),
            str(reason),
        )

    def failure(
        self, status: int, headers: Mapping[str, str], body: bytes, now: float
    ) -> Retryable | LLMError:
        """Return the error for an answer: as OpenAI's, except for two that are recognized by their text."""
        message = worded(status, body)
        if _NO_CREDIT in message:
            return LLMDenied(message)
        if status == 400 and _FILTERED in message:
            return ContentFiltered(message)
        return failure_of(status, headers, body, now)

    def _constraint(self, request: ChatRequest) -> AnthropicStructured:
        if not request.choices and request.schema is None:
            return "none"
        if self.structured != "auto":
            return self.structured
        thinking = group(self.extra_body.get("thinking")).get("type", "disabled") != "disabled"
        return "json_schema" if thinking or request.tools else "tool"


DIALECT = AnthropicDialect


class _Blocks:
    """The content of a message: its text, thoughts and tool calls."""

    def __init__(self, blocks: list[Part], forced: bool) -> None:
        thoughts = [block for block in blocks if block.get("type") in ("thinking", "redacted_thinking")]
        uses = [block for block in blocks if block.get("type") == "tool_use"]
        self.reasoning = "\n\n".join(text_or_nothing(block.get("thinking")) for block in thoughts).strip()
        self.text = "".join(text_or_nothing(block.get("text")) for block in blocks if block not in thoughts)
        answers = [block.get("input") for block in uses if forced and block.get("name") == _ANSWER]
        self.forced = bool(answers)
        if answers:
            self.text, uses = orjson.dumps(answers[0]).decode(), []
        # The signed thoughts before the first call must be sent back with it.
        extras = [{"anthropic": thoughts} if thoughts and not index else None for index in range(len(uses))]
        self.calls = [
            tool_call(block.get("id"), block.get("name"), block.get("input"), extra)
            for block, extra in zip(uses, extras, strict=True)
        ]


def _blocks(message: dict[str, Any]) -> list[Part]:
    content = [_block(part) for part in parts(message.get("content")) if part != {"type": "text", "text": ""}]
    if message["role"] == "tool":
        return [{"type": "tool_result", "tool_use_id": message.get("tool_call_id"), "content": content}]
    calls = groups(message.get("tool_calls"))
    signed = [block for blocks in extra_of(calls, "anthropic") for block in blocks or ()]
    uses = [
        {"type": "tool_use", "id": call["id"], "name": call["function"]["name"], "input": arguments(call)}
        for call in calls
    ]
    return [*signed, *content, *uses]


def _block(part: Part) -> Part:
    found = media(part)
    if found is None:
        return part  # a text, or a block in Anthropic's form
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
    """Return the requested choices or schema as the schema of an object."""
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
