from typing import Any

from peerloom.services.llm.base import ChatReply, ChatRequest
from peerloom.services.llm.widening import WideningLLM

REQUEST = ChatRequest(messages=[])


class Client:
    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self.closed = False

    async def chat(self, request: ChatRequest) -> ChatReply:
        assert not self.closed
        return ChatReply(text=str(self.concurrency))

    async def close(self) -> None:
        self.closed = True


class Spec:
    def __init__(self) -> None:
        self.made: list[Client] = []

    def connect(self, *, concurrency: int) -> Any:
        self.made.append(Client(concurrency))
        return self.made[-1]


async def test_a_wider_client_takes_over_and_the_old_one_stays_open_for_its_calls() -> None:
    spec = Spec()
    llm = WideningLLM(spec, 4)
    under_way = llm.chat(REQUEST)
    llm.widen(9)
    assert (await llm.chat(REQUEST)).text == "9"
    assert (await under_way).text
    assert [client.closed for client in spec.made] == [False, False]
    await llm.close()
    assert [client.closed for client in spec.made] == [True, True]


async def test_room_that_is_there_stays() -> None:
    spec = Spec()
    llm = WideningLLM(spec, 4)
    llm.widen(4)
    llm.widen(2)
    assert (await llm.chat(REQUEST)).text == "4"
    assert len(spec.made) == 1
    await llm.close()
