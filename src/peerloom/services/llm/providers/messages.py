"""OpenAI's chat messages taken apart, for providers that put the same things elsewhere."""

import mimetypes
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import orjson

from peerloom.errors import LLMRejected
from peerloom.services.llm.wire_format.chat import group

Part = dict[str, Any]


class Media(NamedTuple):
    """An image or a recording: its bytes in base64, or else the URL where it is."""

    mime: str
    base64: str = ""
    url: str = ""


def instructions(messages: Iterable[Mapping[str, Any]]) -> str:
    """The words of all system messages."""
    told = [message.get("content") for message in messages if message["role"] in _SYSTEM]
    return "\n\n".join("".join(part.get("text") or "" for part in parts(content)) for content in told)


def conversation(messages: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """All other messages."""
    return (message for message in messages if message["role"] not in _SYSTEM)


def parts(content: Any) -> list[Part]:
    """The parts of a message; of a plain text the one it is, of an empty one none."""
    if isinstance(content, list):
        return cast("list[Part]", content)
    return [{"type": "text", "text": content}] if content else []


def media(part: Part) -> Media | None:
    """The image or recording that an OpenAI part holds; None for any other part."""
    kind = part.get("type")
    if kind == "image_url":
        url: Any = part.get("image_url")
        if isinstance(url, dict):
            url = cast("dict[str, Any]", url).get("url")
        if not isinstance(url, str):
            raise LLMRejected("an image_url part of the prompt has no url")
        return _at(url)
    if kind == "input_audio":
        sound = group(part.get("input_audio"))
        return Media(f"audio/{sound.get('format', 'wav')}", sound.get("data", ""))
    return None


def arguments(call: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of an OpenAI tool call that goes back to a model, decoded."""
    given: Any = call["function"].get("arguments") or "{}"
    if isinstance(given, str):
        try:
            given = orjson.loads(given)
        except orjson.JSONDecodeError:
            return {}  # what the model itself wrote, and was told of
    return cast("dict[str, Any]", given) if isinstance(given, dict) else {}


def tool_call(call_id: Any, name: Any, given: Any, extra: dict[str, Any] | None = None) -> dict[str, Any]:
    """A tool call in OpenAI's form. `extra` is what a provider wants back with it."""
    function = {"name": name, "arguments": orjson.dumps(given).decode()}
    call: dict[str, Any] = {"id": call_id, "type": "function", "function": function}
    return {**call, "extra_content": extra} if extra else call


def extra_of(calls: Sequence[Mapping[str, Any]], provider: str) -> list[Any]:
    """What `provider` wants back with each call; None where there is nothing."""
    return [group(call.get("extra_content")).get(provider) for call in calls]


def merged(body: dict[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """`body` with further keys; of a group that both have, the keys of both."""
    for key, value in more.items():
        both = isinstance(body.get(key), dict) and isinstance(value, dict)
        body[key] = {**body[key], **value} if both else value
    return body


def _at(url: str) -> Media:
    head, comma, data = url.partition(",")
    if head.startswith("data:") and comma and head.endswith(";base64"):
        return Media(head[5:].partition(";")[0], data)
    return Media(mimetypes.guess_type(url)[0] or "image/jpeg", url=url)


_SYSTEM = ("system", "developer")
