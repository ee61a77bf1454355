"""The steps with `instructor`, whose tool calls are how it gets a structured answer."""

from typing import Any

import instructor
from openai import OpenAI, RateLimitError
from steps import AGAIN, HELLO, KEY, MODEL, Verdict, called, completion, refusal, report


def client(url: str, mode: instructor.Mode = instructor.Mode.JSON_SCHEMA, retries: int = 0) -> Any:
    return instructor.from_openai(OpenAI(base_url=url, api_key=KEY, max_retries=retries), mode=mode)


def ask(client: Any, messages: Any = HELLO) -> tuple[Verdict, Any]:
    return client.chat.completions.create_with_completion(
        model=MODEL, messages=messages, response_model=Verdict, max_retries=0
    )


def chat(url: str) -> Any:
    return completion(ask(client(url))[1])


def structured(url: str) -> Any:
    return ask(client(url))[0].model_dump()


def tool_call(url: str) -> Any:
    verdict, found = ask(client(url, instructor.Mode.TOOLS))
    (call,) = found.choices[0].message.tool_calls
    return called(call.function.name, call.function.arguments, verdict.model_dump_json())


def streamed(url: str) -> Any:
    parts = client(url).chat.completions.create_partial(
        model=MODEL, messages=HELLO, response_model=Verdict, max_retries=0
    )
    return {"text": list(parts)[-1].model_dump_json(), "tokens": None}


def refused(url: str) -> Any:
    try:
        return completion(ask(client(url))[1])
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, RateLimitError):
            cause = cause.__cause__ or cause.__context__
        return refusal(cause)


def retried(url: str) -> Any:
    return completion(ask(client(url, retries=2), AGAIN)[1])


if __name__ == "__main__":
    report(chat, structured, streamed, tool_call, refused, retried)
