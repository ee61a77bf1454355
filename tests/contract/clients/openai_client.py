"""The steps with `openai`."""

from typing import Any

from openai import OpenAI, RateLimitError
from steps import AGAIN, HELLO, KEY, MODEL, WEATHER, Verdict, called, completion, refusal, report


def client(url: str, retries: int = 0) -> OpenAI:
    return OpenAI(base_url=url, api_key=KEY, max_retries=retries)


def chat(url: str) -> Any:
    return completion(client(url).chat.completions.create(model=MODEL, messages=HELLO))


def structured(url: str) -> Any:
    found = client(url).chat.completions.parse(model=MODEL, messages=HELLO, response_format=Verdict)
    return found.choices[0].message.parsed.model_dump()


def tool_call(url: str) -> Any:
    create = client(url).chat.completions.create
    asked = create(model=MODEL, messages=HELLO, tools=[WEATHER], tool_choice="required").choices[0].message
    (call,) = asked.tool_calls
    result = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
    after = create(
        model=MODEL, messages=[*HELLO, asked.model_dump(exclude_none=True), result], tools=[WEATHER]
    )
    return called(call.function.name, call.function.arguments, after.choices[0].message.content)


def refused(url: str) -> Any:
    try:
        return completion(client(url).chat.completions.create(model=MODEL, messages=HELLO))
    except RateLimitError as error:
        return refusal(error)


def retried(url: str) -> Any:
    return completion(client(url, retries=2).chat.completions.create(model=MODEL, messages=AGAIN))


if __name__ == "__main__":
    report(chat, structured, tool_call, refused, retried)
