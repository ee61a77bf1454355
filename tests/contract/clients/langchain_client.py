"""The steps with `langchain-openai`."""

from typing import Any

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from openai import RateLimitError
from steps import AGAIN, HELLO, KEY, MODEL, WEATHER, Verdict, called, refusal, report

QUESTION = HumanMessage(HELLO[0]["content"])


def client(url: str, retries: int = 0) -> ChatOpenAI:
    return ChatOpenAI(base_url=url, api_key=KEY, model=MODEL, max_retries=retries)


def told(message: Any) -> dict[str, Any]:
    usage = message.usage_metadata
    return {
        "text": message.content,
        "finish_reason": message.response_metadata["finish_reason"],
        "usage": [usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]],
    }


def chat(url: str) -> Any:
    return told(client(url).invoke([QUESTION]))


def structured(url: str) -> Any:
    return client(url).with_structured_output(Verdict, method="json_schema").invoke([QUESTION]).model_dump()


def tool_call(url: str) -> Any:
    asked = client(url).bind_tools([WEATHER], tool_choice="required").invoke([QUESTION])
    (call,) = asked.tool_calls
    result = ToolMessage("rain", tool_call_id=call["id"])
    after = client(url).bind_tools([WEATHER]).invoke([QUESTION, asked, result])
    return called(call["name"], call["args"], after.content)


def streamed(url: str) -> Any:
    made = ChatOpenAI(base_url=url, api_key=KEY, model=MODEL, stream_usage=True)
    chunks = list(made.stream([QUESTION]))
    whole = sum(chunks[1:], chunks[0])
    return {"text": whole.content, "tokens": whole.usage_metadata["total_tokens"]}


def several(url: str) -> Any:
    made = ChatOpenAI(base_url=url, api_key=KEY, model=MODEL, n=3)
    return [each.text for each in made.generate([[QUESTION]]).generations[0]]


def json_object(url: str) -> Any:
    return client(url).with_structured_output(None, method="json_mode").invoke([QUESTION])


def refused(url: str) -> Any:
    try:
        return told(client(url).invoke([QUESTION]))
    except RateLimitError as error:
        return refusal(error)


def retried(url: str) -> Any:
    return told(client(url, retries=2).invoke([HumanMessage(AGAIN[0]["content"])]))


if __name__ == "__main__":
    report(chat, structured, streamed, several, json_object, tool_call, refused, retried)
