"""Mini-coral as a graph of nine nodes, six of them a call of ChatOpenAI; a task is an invocation."""

import asyncio
import operator
import sys
import time
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, StateGraph

sys.path.insert(0, str(Path(__file__).parents[1] / "common"))
import work


class State(TypedDict):
    row: dict[str, Any]
    statements: Annotated[list, operator.add]
    extracted: str
    letters: Annotated[list, operator.add]


def graph(spec, model):
    async def extractor(state):
        text = state["statements"][-1][1]
        return {"extracted": (await model.ainvoke(work.extract(spec, text))).content}

    async def matcher(state):
        return {"letters": [work.letter(spec, state["extracted"])]}

    def speaker(who):
        async def node(state):
            messages = work.speak(spec, state["row"], who, state["statements"])
            return {"statements": [(who, (await model.ainvoke(messages)).content)]}

        return node

    built, before = StateGraph(State), START
    for turn, who in enumerate(work.SPEAKERS):
        for name, node in (
            (f"{who}{turn}", speaker(who)),
            (f"extract{turn}", extractor),
            (f"match{turn}", matcher),
        ):
            built.add_node(name, node)
            built.add_edge(before, name)
            before = name
    built.add_edge(before, END)
    return built.compile()


async def main(spec):
    model = ChatOpenAI(model=spec.model, base_url=spec.url, api_key="none", max_retries=0, timeout=3_600)
    app, left, results = graph(spec, model), iter(spec.rows_), []

    async def worker():
        for row in left:
            results.append(await app.ainvoke({"row": row, "statements": [], "letters": []}))

    begin = time.time()
    await asyncio.gather(*(worker() for _ in range(min(spec.in_flight, spec.tasks))))
    assert sum(len(result["letters"]) for result in results) == 3 * spec.tasks
    work.said(begin, len(results))


asyncio.run(main(work.spec()))
