"""Take OpenAI's chat messages apart, for providers with another message format."""

import mimetypes
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import orjson

from peerloom.errors import LLMRejected
from peerloom.services.llm.wire_format.chat import group

Part = dict[str, Any]


class Media(NamedTuple):
    """An image or a recording: its bytes in base64, or its URL."""

    mime: str
    base64: str = ""
    url: str = ""


def instructions(messages: Iterable[Mapping[str, Any]]) -> str:
    """Return the text of all system messages."""
    contents = [message.get("content") for message in messages if message["role"] in _SYSTEM]
    return "\n\n".join("".join(part.get("text") or "" for part in parts(content)) for content in contents)


def conversation(
    messages: Iterable[dict[str, Any]],
    assistant: str,
    key: str,
    encode: Callable[[dict[str, Any]], list[Part]],
) -> list[dict[str, Any]]:
    """Return the messages that are not system messages, with adjacent ones of one role merged.

    Args:
        messages: the messages.
        assistant: the provider's name of the model's role.
        key: the provider's name of the content.
        encode: returns the content of a message in the provider's form.
    """
    found: list[dict[str, Any]] = []
    for message in messages:
        if message["role"] not in _SYSTEM:
            role = assistant if message["role"] == "assistant" else "user"
            content = encode(message)
            if found and found[-1]["role"] == role:
                found[-1][key] += content
            elif content:
                found.append({"role": role, key: content})
    return found


def parts(content: Any) -> list[Part]:
    """Return the parts of a message's content: one for a text, none for an empty one."""
    if isinstance(content, list):
        return cast("list[Part]", content)
    return [{"type": "text", "text": content}] if content else []


def media(part: Part) -> Media | None:
    """Return the image or recording that an OpenAI part holds; None for any other part."""
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
    """Return the decoded arguments of an OpenAI tool call."""
    given: Any = call["function"].get("arguments") or "{}"
    if isinstance(given, str):
        try:
            given = orjson.loads(given)
        except orjson.JSONDecodeError:
            return {}  # the model wrote them, and was told that they are invalid
    return cast("dict[str, Any]", given) if isinstance(given, dict) else {}


def tool_call(call_id: Any, name: Any, given: Any, extra: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a tool call in OpenAI's form; `extra` is data that the provider requires back with it."""
    function = {"name": name, "arguments": orjson.dumps(given).decode()}
    call: dict[str, Any] = {"id": call_id, "type": "function", "function": function}
    return {**call, "extra_content": extra} if extra else call


def extra_of(calls: Sequence[Mapping[str, Any]], provider: str) -> list[Any]:
    """Return the extra data of `provider` for each call; None for a call without."""
    return [group(call.get("extra_content")).get(provider) for call in calls]


def merged(body: dict[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Add keys to `body`, merging objects that both have, and return it."""
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
