"""Check the tool calls of a reply against the names and schemas of the agent's tools."""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import orjson

from peerloom.agents.answers import Json
from peerloom.errors import ConfigError

_MAX_NAME = 80  # characters of an unknown name in messages
_OPTIONAL = ("", "auto", "none")
_ANY_OBJECT: dict[str, Any] = {"type": "object"}


class Calls(NamedTuple):
    """Checked tool calls.

    Args:
        value: the `id`, `name` and decoded `arguments` of each call.
        message: the same calls in OpenAI's form, with arguments that are valid JSON.
        repaired: whether any arguments were repaired.
    """

    value: list[dict[str, Any]]
    message: list[dict[str, Any]]
    repaired: bool


class Tools:
    """The OpenAI function tools of an agent, and the tool choice.

    Raises:
        ConfigError: if a tool is not in OpenAI's form, or `choice` names none of them.
    """

    def __init__(self, tools: Sequence[dict[str, Any]], choice: str) -> None:
        self._schemas: dict[str, Json] = {}
        for number, tool in enumerate(tools):
            function = cast("dict[str, Any]", tool.get("function")) if tool.get("type") == "function" else {}
            name = function.get("name")
            if not isinstance(name, str):
                raise ConfigError(
                    f"tools[{number}] is not a function tool: it needs type=function and function.name"
                )
            try:
                self._schemas[name] = Json(function.get("parameters") or _ANY_OBJECT)
            except ConfigError as error:
                raise ConfigError(f"tools[{number}], {name!r}: {error}") from error
        if choice not in (*_OPTIONAL, "required") and choice not in self._schemas:
            raise ConfigError(
                f"tool_choice is {choice!r}: use auto, none, required or one of {self._names()}"
            )
        if choice not in _OPTIONAL and not tools:
            raise ConfigError(f"tool_choice is {choice!r}, but there are no tools")
        self._choice = choice

    @property
    def required(self) -> bool:
        """Whether a reply must call a tool."""
        return self._choice not in _OPTIONAL

    def missing(self) -> ValueError:
        """Return the error for a reply that calls no tool."""
        return ValueError(
            f"it calls no tool: call {'one of ' if len(self._schemas) > 1 else ''}{self._names()}"
        )

    def read(self, calls: Sequence[dict[str, Any]], *, repair: bool) -> Calls:
        """Check the calls of a reply."""
        value: list[dict[str, Any]] = []
        message: list[dict[str, Any]] = []
        repaired = False
        for call in calls:
            name, text = _named(call)
            schema = self._schemas.get(name)
            if schema is None:
                shown = name[:_MAX_NAME]
                raise ValueError(f"it calls {shown!r}, which is not a tool: there are {self._names()}")
            arguments, was_repaired = _arguments(schema, name, text, repair)
            repaired |= was_repaired
            call_id = call.get("id")
            value.append({"id": call_id, "name": name, "arguments": arguments})
            given = orjson.dumps(arguments).decode() if was_repaired else text
            function = {"name": name, "arguments": given}
            message.append({**call, "id": call_id, "type": "function", "function": function})
        return Calls(value, message, repaired)

    def _names(self) -> str:
        return ", ".join(self._schemas) or "none"


def with_ids(calls: Sequence[dict[str, Any]], hop: int, taken: set[str]) -> list[dict[str, Any]]:
    """Return calls with a unique id each; a generated id is the same if the turn is repeated."""
    return [{**call, "id": _unique_id(call.get("id"), taken, hop)} for call in calls]


def _unique_id(given: Any, taken: set[str], hop: int) -> str:
    """Return the id of a call if it is unique, else a new one, and add it to `taken`."""
    call_id = given if isinstance(given, str) and given.strip() and given not in taken else ""
    number = len(taken)
    while not call_id or call_id in taken:
        call_id, number = f"call_{hop}_{number}", number + 1
    taken.add(call_id)
    return call_id


def _named(call: dict[str, Any]) -> tuple[str, str]:
    """Return the name of the called tool, and its arguments as text; some servers send decoded arguments."""
    function = cast("dict[str, Any]", call["function"]) if isinstance(call.get("function"), dict) else {}
    given = function.get("arguments") or "{}"
    return str(function.get("name")), given if isinstance(given, str) else orjson.dumps(given).decode()


def _arguments(schema: Json, name: str, text: str, repair: bool) -> tuple[Any, bool]:
    try:
        return schema.read(text), False
    except ValueError as error:
        if repair:
            try:
                return schema.repair(text), True
            except ValueError:
                pass
        raise ValueError(f"in the arguments of {name}: {error}") from error
