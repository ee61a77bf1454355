"""What counts as a call of a tool: a name there is, and arguments that follow the tool's schema."""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import orjson

from peerloom.agents.answers import Json
from peerloom.errors import ConfigError

_NAME = 80  # characters of a name that is none
_FREE = ("", "auto", "none")
_ANY_OBJECT: dict[str, Any] = {"type": "object"}


class Calls(NamedTuple):
    """Calls that were read.

    Args:
        value: for each its `id`, `name` and decoded `arguments`.
        said: the same in OpenAI's form, with arguments that are JSON.
        repaired: whether the arguments of any had to be mended.
    """

    value: list[dict[str, Any]]
    said: list[dict[str, Any]]
    repaired: bool


class Tools:
    """Some OpenAI function tools, and which must be called.

    Raises:
        ConfigError: if one is not in OpenAI's form, or `choice` names none of them.
    """

    def __init__(self, tools: Sequence[dict[str, Any]], choice: str) -> None:
        self._schemas: dict[str, Json] = {}
        for number, tool in enumerate(tools):
            function = cast("dict[str, Any]", tool.get("function")) if tool.get("type") == "function" else {}
            name = function.get("name")
            if not isinstance(name, str):
                raise ConfigError(
                    f"tools[{number}] is no function tool: it needs type=function and function.name"
                )
            try:
                self._schemas[name] = Json(function.get("parameters") or _ANY_OBJECT)
            except ConfigError as error:
                raise ConfigError(f"tools[{number}], {name!r}: {error}") from error
        if choice not in (*_FREE, "required") and choice not in self._schemas:
            raise ConfigError(
                f"tool_choice is {choice!r}: use auto, none, required or one of {self._names()}"
            )
        if choice not in _FREE and not tools:
            raise ConfigError(f"tool_choice is {choice!r}, but there are no tools")
        self._choice = choice

    @property
    def demanded(self) -> bool:
        """Whether a reply without a call is none."""
        return self._choice not in _FREE

    def missing(self) -> ValueError:
        """What is wrong with a reply that calls no tool."""
        return ValueError(
            f"it calls no tool: call {'one of ' if len(self._schemas) > 1 else ''}{self._names()}"
        )

    def read(self, calls: Sequence[dict[str, Any]], *, mend: bool) -> Calls:
        """Check the calls of a reply.

        Args:
            calls: in OpenAI's form, each with its own id.
            mend: whether arguments that are no JSON may be mended.

        Raises:
            ValueError: what is wrong with one, and what to call instead.
        """
        value: list[dict[str, Any]] = []
        said: list[dict[str, Any]] = []
        repaired = False
        for call in calls:
            name, text = _named(call)
            schema = self._schemas.get(name)
            if schema is None:
                raise ValueError(f"it calls {name[:_NAME]!r}, which is no tool: there are {self._names()}")
            arguments, mended = _arguments(schema, name, text, mend)
            repaired |= mended
            call_id = call.get("id")
            value.append({"id": call_id, "name": name, "arguments": arguments})
            given = orjson.dumps(arguments).decode() if mended else text
            function = {"name": name, "arguments": given}
            said.append({**call, "id": call_id, "type": "function", "function": function})
        return Calls(value, said, repaired)

    def _names(self) -> str:
        return ", ".join(self._schemas) or "none"


def with_ids(calls: Sequence[dict[str, Any]], hop: int, taken: set[str]) -> list[dict[str, Any]]:
    """Give each call without an id of its own one, the same whenever this turn is made again.

    Args:
        calls: in OpenAI's form.
        hop: the number of the turn in its task.
        taken: ids of earlier calls of the task; grows by those of these calls.
    """
    return [{**call, "id": _own_id(call.get("id"), taken, hop)} for call in calls]


def _own_id(given: Any, used: set[str], hop: int) -> str:
    """The id of a call if it has one that no other has, else a new one; `used` grows by it."""
    own = given if isinstance(given, str) and given.strip() and given not in used else ""
    number = len(used)
    while not own or own in used:
        own, number = f"call_{hop}_{number}", number + 1
    used.add(own)
    return own


def _named(call: dict[str, Any]) -> tuple[str, str]:
    """The name of what is called, and its arguments as a text; some servers decode these."""
    function = cast("dict[str, Any]", call["function"]) if isinstance(call.get("function"), dict) else {}
    given = function.get("arguments") or "{}"
    return str(function.get("name")), given if isinstance(given, str) else orjson.dumps(given).decode()


def _arguments(schema: Json, name: str, text: str, mend: bool) -> tuple[Any, bool]:
    try:
        return schema.read(text), False
    except ValueError as error:
        if mend:
            try:
                return schema.mend(text), True
            except ValueError:
                pass
        raise ValueError(f"in the arguments of {name}: {error}") from error
