"""The `openai` client against an OpenAI-compatible server."""

from typing import Any, Literal

from openai import OpenAI, RateLimitError
from openai.lib._pydantic import to_strict_json_schema
from pydantic import BaseModel
from report import report

MODEL = "simulated"
HELLO: Any = [{"role": "user", "content": "Does ice float?"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


class Verdict(BaseModel):
    floats: bool
    certainty: Literal["low", "high"]
    steps: list[str]


def client(url: str, retries: int = 0) -> OpenAI:
    return OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=retries)


def chat(url: str) -> Any:
    return client(url).chat.completions.create(model=MODEL, messages=HELLO).model_dump()


def structured(url: str) -> Any:
    found = client(url).chat.completions.parse(model=MODEL, messages=HELLO, response_format=Verdict)
    parsed = found.choices[0].message.parsed
    assert parsed is not None
    return {"schema": to_strict_json_schema(Verdict), "value": parsed.model_dump()}


def tool_call(url: str) -> Any:
    return call_tool(url)


def call_tool(url: str) -> Any:
    found = client(url).chat.completions.create(
        model=MODEL, messages=HELLO, tools=[WEATHER], tool_choice="required"
    )
    choice = found.choices[0]
    assert choice.message.tool_calls
    result: Any = {"role": "tool", "tool_call_id": choice.message.tool_calls[0].id, "content": "rain"}
    messages = [*HELLO, choice.message.model_dump(exclude_none=True), result]
    after = client(url).chat.completions.create(model=MODEL, messages=messages, tools=[WEATHER])
    return {"call": choice.model_dump(), "after": after.choices[0].message.content}


def refused(url: str) -> Any:
    try:
        client(url).chat.completions.create(model=MODEL, messages=HELLO)
    except RateLimitError as error:
        return {"code": error.code, "headers": dict(error.response.headers)}
    return {"error": "the call was not refused"}


if __name__ == "__main__":
    report(chat, structured, tool_call, refused)
