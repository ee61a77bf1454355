"""Encode and decode Gemini's generateContent and batchEmbedContents.

Messages are contents made of parts, the model's role is `model`, and sampling options are in
`generationConfig`. A tool call without an id is given one, and carries the thought signature that must be
sent back with it. The details of an error have the time to wait, and show whether the daily quota is used up.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, cast

import orjson

from peerloom.errors import ContentFiltered, LLMDenied, LLMError
from peerloom.options import FREE, SAME, Options
from peerloom.services.llm.base import ChatReply, ChatRequest, EmbedReply, EmbedRequest
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
from peerloom.services.llm.retry import Retryable
from peerloom.services.llm.wire_format.chat import (
    accepted,
    count,
    given,
    group,
    groups,
    message_of,
    text_or_nothing,
    whole_numbers,
)
from peerloom.services.llm.wire_format.failures import error_in, failure_of, worded
from peerloom.services.llm.wire_format.finish_reasons import KNOWN, finish_reason
from peerloom.services.llm.wire_format.payloads import MalformedBody
from peerloom.services.secret import Secret
from peerloom.task import Usage

GEMINI = Provider(
    "https://generativelanguage.googleapis.com", "GOOGLE_GEMINI_BASE_URL", "GEMINI_API_KEY", dropped="/v1beta"
)

GeminiStructured = Literal["auto", "json_schema", "none"]
"""The option by which choices and schemas are passed: a response schema (`auto`, `json_schema`), or none."""

_NOT_ALLOWED = ("API_KEY_INVALID", "FAILED_PRECONDITION")  # both sent as 400
_A_DAY = "PerDay"


@dataclass(frozen=True, slots=True, kw_only=True)
class GeminiDialect(Options, Dialect):
    """The dialect of Gemini."""

    provider: ClassVar[Provider] = GEMINI

    structured: Annotated[GeminiStructured, FREE] = "auto"
    """The option by which choices and schemas are passed to the model."""
    extra_body: Annotated[dict[str, Any], SAME] = field(default_factory=dict[str, Any])
    """Additional keys of every body; those of `generationConfig` are merged with the request's."""

    @property
    def models_path(self) -> str:
        """The path of the list of all models, on one page."""
        return "/v1beta/models?pageSize=1000"

    def model_path(self, model: str) -> str | None:
        """Return the path of a model's description; names that are not in the list are valid too."""
        return f"/v1beta/{_name(model)}"

    def listed(self, payload: Any) -> list[str] | None:
        """Return the names of the models, without `models/`."""
        try:
            return [cast("str", item["name"]).removeprefix("models/") for item in payload["models"]]
        except (KeyError, TypeError, AttributeError) as error:
            raise MalformedBody("it has no models[].name") from error

    def probe(self, model: str) -> Post:
        """Return a request without contents."""
        return Post(f"/v1beta/{_name(model)}:generateContent", b"{}", {})

    def auth(self, key: Secret) -> dict[str, str]:
        """Return the `x-goog-api-key` header; logs of URLs do not include it."""
        return {"x-goog-api-key": key.reveal()}

    def chat(self, request: ChatRequest, model: str) -> Post:
        """Return a generateContent request."""
        body: dict[str, Any] = {"contents": _contents(request), "generationConfig": self._config(request)}
        if system := instructions(request.messages):
            body["systemInstruction"] = {"parts": [{"text": system}]}
        if request.tools:
            body |= _tools(request)
        body = merged(body, self.extra_body)
        return Post(f"/v1beta/{_name(model)}:generateContent", orjson.dumps(body), {})

    def reply(self, payload: Any, request: ChatRequest, seconds: float) -> ChatReply:
        """Return the reply of the first candidate."""
        answer = group(payload)
        usage = _usage(group(answer.get("usageMetadata")))
        candidate = _candidate(answer, usage)
        found = groups(group(candidate.get("content")).get("parts"))
        reasoning = "".join(text_or_nothing(part.get("text")) for part in found if part.get("thought"))
        text = "".join(text_or_nothing(part.get("text")) for part in found if not part.get("thought"))
        calls = _calls(found, text_or_nothing(answer.get("responseId")))
        logprobs, ids = _logprobs(group(candidate.get("logprobsResult")))
        reason = candidate.get("finishReason")
        finish = finish_reason(reason, called=bool(calls))
        if calls and finish == "stop":
            finish = "tool_calls"
        if not text and not calls and finish not in KNOWN:
            finish = "error"  # such as OTHER: the server gave up
        return accepted(
            ChatReply(
                text=text,
                finish_reason=finish,
                usage=usage,
                model=text_or_nothing(answer.get("modelVersion")),
                seconds=seconds,
                message=message_of(text, calls),
                reasoning=reasoning,
                tool_calls=calls,
                logprobs=logprobs,
                token_ids=ids,
            ),
            str(reason),
        )

    def embed(self, request: EmbedRequest, model: str) -> Post:
        """Return a batchEmbedContents request, with an entry for each text."""
        size = {} if request.dimensions is None else {"outputDimensionality": request.dimensions}
        requests = [
            {"model": _name(model), "content": {"parts": [{"text": text}]}, **size} for text in request.texts
        ]
        return Post(f"/v1beta/{_name(model)}:batchEmbedContents", orjson.dumps({"requests": requests}), {})

    def vectors(self, payload: Any, request: EmbedRequest, seconds: float) -> EmbedReply:
        """Return the vectors in a body; Gemini reports no usage for them."""
        try:
            vectors = [item["values"] for item in payload["embeddings"]]
        except (KeyError, TypeError) as error:
            raise MalformedBody("it has no embeddings[].values") from error
        if len(vectors) != len(request.texts) or not all(isinstance(vector, list) for vector in vectors):
            raise MalformedBody(f"it has {len(vectors)} vectors for {len(request.texts)} texts")
        return EmbedReply(vectors=vectors, seconds=seconds)

    def failure(
        self, status: int, headers: Mapping[str, str], body: bytes, now: float
    ) -> Retryable | LLMError:
        """Return the error for an answer: as OpenAI's, refined by Gemini's details."""
        error, message = error_in(body), worded(status, body)
        details = orjson.dumps(error.get("details") or []).decode()
        if status == 400 and any(known in f"{error.get('status')} {details}" for known in _NOT_ALLOWED):
            return LLMDenied(f"{message}; the API key is refused, or may not do this")
        if status == 429 and _A_DAY in details:
            return LLMDenied(f"{message}; the day's quota is used up")
        failure = failure_of(status, headers, body, now)
        if isinstance(failure, Retryable) and failure.retry_after is None:
            failure.retry_after = _retry_delay(error.get("details"))
        return failure

    def _config(self, request: ChatRequest) -> dict[str, Any]:
        config = given(
            maxOutputTokens=request.max_tokens,
            temperature=request.temperature,
            topP=request.top_p,
            stopSequences=list(request.stop) or None,
            seed=request.seed,
        )
        if request.top_logprobs is not None:
            config |= {"responseLogprobs": True, "logprobs": request.top_logprobs}
        if self.structured == "none":
            return config
        if request.choices:
            schema = {"type": "STRING", "enum": list(request.choices)}
            config |= {"responseMimeType": "text/x.enum", "responseSchema": schema}
        elif request.schema is not None:
            config |= {"responseMimeType": "application/json", "responseJsonSchema": request.schema}
        return config


DIALECT = GeminiDialect


def _name(model: str) -> str:
    return model if "/" in model else f"models/{model}"


def _contents(request: ChatRequest) -> list[dict[str, Any]]:
    names: dict[str, str] = {}  # the names of called tools by call id
    return conversation(request.messages, "model", "parts", lambda message: _parts(message, names))


def _parts(message: dict[str, Any], names: dict[str, str]) -> list[Part]:
    content = [_part(part) for part in parts(message.get("content"))]
    if message["role"] == "tool":
        answer = "".join(part.get("text") or "" for part in content)
        name = names.get(str(message.get("tool_call_id")), "")
        return [{"functionResponse": {"name": name, "response": {"result": answer}}}]
    calls = groups(message.get("tool_calls"))
    for call, signed in zip(calls, extra_of(calls, "google"), strict=True):
        name = names[call["id"]] = call["function"]["name"]
        called = {"functionCall": {"name": name, "args": arguments(call)}}
        content.append({**called, "thoughtSignature": signed["thought_signature"]} if signed else called)
    return content


def _part(part: Part) -> Part:
    if part.get("type") == "text":
        return {"text": part["text"]}
    found = media(part)
    if found is None:
        return part  # in Gemini's form
    if found.url:
        return {"fileData": {"mimeType": found.mime, "fileUri": found.url}}
    return {"inlineData": {"mimeType": found.mime, "data": found.base64}}


def _tools(request: ChatRequest) -> dict[str, Any]:
    declared: list[Part] = []
    for tool in request.tools:
        function = dict(tool["function"])
        schema = function.pop("parameters", None)
        function.pop("strict", None)
        declared.append({**function, "parametersJsonSchema": schema} if schema else function)
    body: dict[str, Any] = {"tools": [{"functionDeclarations": declared}]}
    if request.tool_choice:
        mode = {"auto": "AUTO", "none": "NONE"}.get(request.tool_choice, "ANY")
        config: dict[str, Any] = {"mode": mode}
        if request.tool_choice not in ("auto", "none", "required"):
            config["allowedFunctionNames"] = [request.tool_choice]
        body["toolConfig"] = {"functionCallingConfig": config}
    return body


def _candidate(answer: dict[str, Any], usage: Usage) -> dict[str, Any]:
    """Return the first candidate, or raise ContentFiltered if the prompt was blocked."""
    blocked = group(answer.get("promptFeedback")).get("blockReason")
    if blocked:
        raise ContentFiltered(f"the provider blocked the prompt: {blocked}", usage=usage)
    candidates = groups(answer.get("candidates"))
    if not candidates:
        raise MalformedBody("it has no candidates[0]")
    return candidates[0]


def _calls(found: list[Part], reply_id: str) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = []
    for part in found:
        called = group(part.get("functionCall"))
        if called:
            signature = part.get("thoughtSignature")
            extra = {"google": {"thought_signature": signature}} if signature else None
            call_id = called.get("id") or f"call_{reply_id}_{len(calls)}"
            calls.append(tool_call(call_id, called.get("name"), group(called.get("args")), extra))
    return calls


def _logprobs(result: dict[str, Any]) -> tuple[list[dict[str, Any]], list[int]]:
    """Return log-probabilities in OpenAI's form, and the token ids if the reply has all of them."""
    chosen = groups(result.get("chosenCandidates"))
    others = groups(result.get("topCandidates"))
    if len(others) != len(chosen):
        others: list[dict[str, Any]] = [{} for _ in chosen]
    records = [
        {
            **_probability(token),
            "top_logprobs": [_probability(other) for other in groups(top.get("candidates"))],
        }
        for token, top in zip(chosen, others, strict=True)
    ]
    return records, whole_numbers([token.get("tokenId") for token in chosen])


def _probability(token: dict[str, Any]) -> dict[str, Any]:
    return {"token": token.get("token"), "logprob": token.get("logProbability")}


def _usage(usage: dict[str, Any]) -> Usage:
    return Usage(
        count(usage.get("promptTokenCount")) + count(usage.get("toolUsePromptTokenCount")),
        count(usage.get("candidatesTokenCount")) + count(usage.get("thoughtsTokenCount")),
        count(usage.get("cachedContentTokenCount")),
        1,
    )


def _retry_delay(details: Any) -> float | None:
    """Return the delay in google.rpc.RetryInfo, in seconds."""
    try:
        delays = [detail["retryDelay"] for detail in details if "retryDelay" in detail]
        return float(delays[0].removesuffix("s")) if delays else None
    except (TypeError, ValueError, AttributeError):
        return None
