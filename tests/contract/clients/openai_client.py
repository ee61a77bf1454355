"""The steps with `openai`."""

import json
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


def streamed(url: str) -> Any:
    stream = client(url).chat.completions.create(
        model=MODEL, messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    return {"text": text, "tokens": chunks[-1].usage.total_tokens}


def several(url: str) -> Any:
    found = client(url).chat.completions.create(model=MODEL, messages=HELLO, n=3)
    return [choice.message.content for choice in found.choices]


def json_object(url: str) -> Any:
    wanted: Any = {"type": "json_object"}
    found = client(url).chat.completions.create(model=MODEL, messages=HELLO, response_format=wanted)
    return json.loads(found.choices[0].message.content)


def others(url: str) -> Any:
    made = client(url)
    return {
        "model": made.models.retrieve(MODEL).id,
        "completion": made.completions.create(model=MODEL, prompt="Ice").choices[0].text,
        "embedding": len(made.embeddings.create(model=MODEL, input=[1, 2, 3]).data[0].embedding),
    }


def refused(url: str) -> Any:
    try:
        return completion(client(url).chat.completions.create(model=MODEL, messages=HELLO))
    except RateLimitError as error:
        return refusal(error)


def retried(url: str) -> Any:
    return completion(client(url, retries=2).chat.completions.create(model=MODEL, messages=AGAIN))


if __name__ == "__main__":
    report(chat, structured, streamed, several, json_object, others, tool_call, refused, retried)
