"""The steps with `litellm`."""

import json
from typing import Any

from litellm import RateLimitError
from litellm import completion as complete
from steps import AGAIN, HELLO, KEY, MODEL, WEATHER, Verdict, called, completion, refusal, report


def ask(url: str, messages: Any = HELLO, retries: int = 0, **options: Any) -> Any:
    given = {"api_base": url, "api_key": KEY, "max_retries": retries}
    return complete(model=f"openai/{MODEL}", messages=messages, **given, **options)


def chat(url: str) -> Any:
    return completion(ask(url))


def structured(url: str) -> Any:
    found = ask(url, response_format=Verdict)
    return Verdict.model_validate_json(found.choices[0].message.content).model_dump()


def tool_call(url: str) -> Any:
    asked = ask(url, tools=[WEATHER], tool_choice="required").choices[0].message
    (call,) = asked.tool_calls
    result = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
    after = ask(url, [*HELLO, asked.model_dump(exclude_none=True), result], tools=[WEATHER])
    return called(call.function.name, call.function.arguments, after.choices[0].message.content)


def streamed(url: str) -> Any:
    chunks = list(ask(url, stream=True, stream_options={"include_usage": True}))
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    return {"text": text, "tokens": chunks[-1].usage.total_tokens}


def several(url: str) -> Any:
    return [choice.message.content for choice in ask(url, n=3).choices]


def json_object(url: str) -> Any:
    return json.loads(ask(url, response_format={"type": "json_object"}).choices[0].message.content)


def refused(url: str) -> Any:
    try:
        return completion(ask(url))
    except RateLimitError as error:
        return refusal(error)


def retried(url: str) -> Any:
    return completion(ask(url, AGAIN, retries=2))


if __name__ == "__main__":
    report(chat, structured, streamed, several, json_object, tool_call, refused, retried)
