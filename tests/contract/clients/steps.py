"""What the client programs share: their questions, and the form in which they report the same steps."""

import json
import sys
from collections.abc import Callable
from typing import Any, Literal

from pydantic import BaseModel

MODEL = "simulated"
KEY = "none"
HELLO: list[Any] = [{"role": "user", "content": "Does ice float?"}]
AGAIN: list[Any] = [{"role": "user", "content": "Does ice float, again?"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


class Verdict(BaseModel):
    """Whether it floats."""

    floats: bool
    certainty: Literal["low", "high"]
    reasons: list[str]


def report(*steps: Callable[[str], Any]) -> None:
    """Print as JSON what each step comes to, or its `error`.

    The arguments are the address of a server, and that of one that is at its limit once `chat` was answered.
    """
    free, limited = sys.argv[1:]
    found: dict[str, Any] = {}
    for step in steps:
        try:
            if step.__name__ == "refused":
                steps[0](limited)
            found[step.__name__] = step(limited if step.__name__ in ("refused", "retried") else free)
        except Exception as error:
            found[step.__name__] = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(found))


def completion(found: Any) -> dict[str, Any]:
    """A completion in OpenAI's form, as every program reports it."""
    (choice,), usage = found.choices, found.usage
    counts = [usage.prompt_tokens, usage.completion_tokens, usage.total_tokens]
    return {"text": choice.message.content, "finish_reason": choice.finish_reason, "usage": counts}


def called(name: str, arguments: str | dict[str, Any], after: str) -> dict[str, Any]:
    """A tool call, and what the model said to its result, as every program reports it."""
    read = json.loads(arguments) if isinstance(arguments, str) else arguments
    return {"name": name, "arguments": read, "after": after}


def refusal(error: Any) -> dict[str, Any]:
    """A 429 as every program reports it."""
    return {"status": error.status_code, "retry_after": error.response.headers.get("retry-after")}
