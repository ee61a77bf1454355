"""Fleets of real vLLM: recipes on two replicas, and each of their processes killed.

The tests share a fleet and run in their order; the last one ends it by killing its supervisor.
"""

import asyncio
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import aiohttp
import psutil
import pytest
from engine_tools import FOLDER, PATIENCE, left_of, note, peerloom, tree_of, until

import peerloom as pl
from peerloom import LLMAgent, RunResult, Sequence

REPLICAS = 2
OPTIONS = (
    "engine=vllm",
    f"model={FOLDER}/smollm2",
    "served_name=smollm2",
    f"replicas={REPLICAS}",
    f"program={FOLDER}/venv/bin/vllm",
    "max_model_len=4096",
    "gpu_memory_utilization=0.15",
    "dtype=float32",  # without AVX-512, bfloat16 is four times as slow
    "lora=true",
    "extra=[--enforce-eager]",
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3 * PATIENCE)]


@pytest.fixture(scope="module")
def fleets(tmp_path_factory: pytest.TempPathFactory, clean_environment: None) -> Iterator[Path]:
    """A directory with a fleet `v` that is up."""
    directory = tmp_path_factory.mktemp("fleets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PEERLOOM_FLEETS", str(directory))
        patch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # or all replicas share the first core
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("VLLM_SERVER_DEV_MODE", "1")  # its caches can be emptied between runs
        began = time.monotonic()
        peerloom("serve", "up", "v", *OPTIONS)
        used = sum(psutil.Process(pid).memory_full_info().pss for pid in processes())
        note("up", replicas=REPLICAS, seconds=round(time.monotonic() - began), gib=round(used / 2**30, 1))
        yield directory
        if (directory / "v.json").exists():
            peerloom("serve", "down", "v")


def status() -> dict[str, Any]:
    return json.loads(peerloom("serve", "status", "v", "--json"))


def processes() -> set[int]:
    """All processes of the fleet's servers."""
    pids = [endpoint["pid"] for endpoint in status()["endpoints"] if endpoint.get("pid")]
    return {each for pid in pids for each in tree_of(pid)}


def counters() -> dict[str, float]:
    """vLLM's own counts of prompt tokens that it looked for in its cache, and found, over all replicas."""
    found = {"queries": 0.0, "hits": 0.0}
    for endpoint in status()["endpoints"]:
        with urlopen(endpoint["url"].removesuffix("/v1") + "/metrics") as answer:
            text = answer.read().decode()
        for name in found:
            pattern = rf"^vllm:prefix_cache_{name}_total{{.*}} ([\d.e+]+)$"
            found[name] += sum(float(number) for number in re.findall(pattern, text, re.MULTILINE))
    return found


def run(run_dir: Path, recipe: str | None = None, **options: Any) -> RunResult:
    result = pl.run(recipe, llm="fleet", run_dir=run_dir, progress=False, **options)
    assert result.how == "finished"
    return result


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_coral(fleets: Path, engine: str, tmp_path: Path) -> None:
    before = counters()
    result = run(tmp_path / "run", "coral", engine=engine, config={"llm.name": "v"}, limit=10)
    after = counters()
    assert result.summary["outcomes"] == {"completed": 10}
    used = result.summary["tokens"]
    assert used["cached"] == after["hits"] - before["hits"]
    note("coral", engine=engine, cached=used["cached"], prompt=used["prompt"])


def test_the_cached_share_with_and_without_affinity(fleets: Path, tmp_path: Path) -> None:
    shares: dict[str, float] = {}
    for affinity in ("conversation", "none"):
        for endpoint in status()["endpoints"]:
            urlopen(Request(f"{endpoint['url'].removesuffix('/v1')}/reset_prefix_cache", method="POST"))
        config = {"llm.name": "v", "llm.routing.affinity": affinity}
        before = counters()
        run(tmp_path / affinity, "coral", engine="local", in_flight=8, config=config, limit=24)
        after = counters()
        shares[affinity] = (after["hits"] - before["hits"]) / (after["queries"] - before["queries"])
    note("cached share", **{affinity: round(share, 3) for affinity, share in shares.items()})
    assert all(0 < share < 1 for share in shares.values())


def test_an_adapter_is_loaded_while_it_serves(fleets: Path, tmp_path: Path) -> None:
    peerloom("serve", "load", "v", f"tuned={FOLDER}/smollm2/adapter")
    agents = {"a": LLMAgent("Name a colour.", max_tokens=8, on_length="trim")}
    replies: dict[str, list[str]] = {}
    for model in ("smollm2", "tuned"):
        config = {"llm.name": "v", "llm.model": model}
        rows = [{"n": number} for number in range(4)]
        result = run(
            tmp_path / model,
            workflow=Sequence("a"),
            agents=agents,
            source=rows,
            engine="local",
            config=config,
        )
        made = sorted(result.rows(), key=lambda row: row["input"]["n"])
        assert [row["turns"][0]["model"] for row in made] == [model] * 4
        replies[model] = [row["messages"][-1]["content"] for row in made]
    assert replies["tuned"] != replies["smollm2"]  # with the same seeds
    peerloom("serve", "unload", "v", "tuned")
    assert status()["adapters"] == {}


def test_natural_reasoning(fleets: Path, tmp_path: Path) -> None:
    result = run(tmp_path / "run", "natural_reasoning", engine="local", config={"llm.name": "v"})
    assert sum(result.summary["outcomes"].values()) == result.summary["admitted"] == 7  # its sample data
    note("natural_reasoning", outcomes=result.summary["outcomes"])


@pytest.mark.parametrize("structured", ["auto", "choice"])
def test_choices_and_schemas_are_honored(fleets: Path, structured: str, tmp_path: Path) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}, "n": {"enum": [1, 2, 3]}},
        "required": ["city", "n"],
        "additionalProperties": False,
    }
    agents = {
        "choose": LLMAgent("Is {{ input.n }} even?", choices=["yes", "no"], chat_role=None, retries=0),
        "fill": LLMAgent("Name a city and a number.", schema=schema, max_tokens=80, retries=0),
    }
    config = {"llm.name": "v", "llm.structured": structured}
    rows = [{"n": number} for number in range(8)]
    result = run(
        tmp_path / "run",
        workflow=Sequence(*agents),
        agents=agents,
        source=rows,
        engine="local",
        config=config,
    )
    assert result.summary["outcomes"] == {"completed": 8}
    assert result.summary["llm_calls"] == 16


def test_log_probabilities_and_token_ids(fleets: Path, tmp_path: Path) -> None:
    agents = {"a": LLMAgent("Is {{ input.n }} even?", choices=["yes", "no"], top_logprobs=1)}
    config = {"llm.name": "v", "llm.extra_body": {"return_token_ids": True}}
    rows = [{"n": number} for number in range(4)]
    result = run(
        tmp_path / "run", workflow=Sequence("a"), agents=agents, source=rows, engine="local", config=config
    )
    assert result.summary["outcomes"] == {"completed": 4}
    for row in result.rows():
        turn = row["turns"][0]
        assert len(turn["token_ids"]) == turn["usage"]["completion"]
        assert len(turn["logprobs"]) == len(turn["token_ids"])


async def bare(urls: list[str], prompts: list[str], max_tokens: int, at_once: int) -> int:
    """The tokens that a client without a framework gets for the same prompts."""
    left, tokens = list(enumerate(prompts)), 0

    async def ask(session: aiohttp.ClientSession) -> None:
        nonlocal tokens
        while left:
            number, prompt = left.pop()
            body = {
                "model": "smollm2",
                "messages": [{"role": "user", "content": prompt}],
                "max_tokens": max_tokens,
            }
            url = f"{urls[number % len(urls)]}/chat/completions"
            async with session.post(url, json=body) as answer:
                tokens += (await answer.json())["usage"]["completion_tokens"]

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE)) as session:
        await asyncio.gather(*(ask(session) for _ in range(at_once)))
    return tokens


def test_tokens_a_second_against_a_bare_client(fleets: Path, tmp_path: Path) -> None:
    prompts = [f"Tell the story of traveller {number} and the sea." for number in range(48)]
    urls = [endpoint["url"] for endpoint in status()["endpoints"]]
    rates: dict[str, list[float]] = {"bare": [], "peerloom": []}
    agents = {"a": LLMAgent("{{ input.p }}", max_tokens=64)}
    for round_ in range(3):
        began = time.monotonic()
        tokens = asyncio.run(bare(urls, prompts, 64, at_once=32))
        rates["bare"].append(tokens / (time.monotonic() - began))
        began = time.monotonic()
        result = run(
            tmp_path / f"run-{round_}",
            workflow=Sequence("a"),
            agents=agents,
            source=[{"p": prompt} for prompt in prompts],
            engine="local",
            in_flight=32,
            config={"llm.name": "v"},
        )
        rates["peerloom"].append(result.summary["tokens"]["completion"] / (time.monotonic() - began))
    note("tokens a second", **{name: round(sorted(each)[1], 1) for name, each in rates.items()})


def pick(pids: dict[int, str], what: str) -> int:
    [found] = [pid for pid, name in pids.items() if re.search(what, name)]
    return found


@pytest.mark.parametrize("what", [r"vllm serve", "EngineCore", "Worker"])
def test_a_killed_process_costs_no_row(fleets: Path, what: str, tmp_path: Path) -> None:
    until(lambda: [each["state"] for each in status()["endpoints"]] == ["up"] * REPLICAS)
    first = status()["endpoints"][0]
    tree = tree_of(first["pid"])
    peerloom("serve", "load", "v", f"tuned={FOLDER}/smollm2/adapter")
    rows = [{"n": number} for number in range(40)]
    agents = {"a": LLMAgent("Tell a long story about {{ input.n }}.", max_tokens=48)}
    ended: list[float] = []

    class Kill(pl.Hooks):
        def progress(self, event: Any) -> None:
            if sum(event.outcomes.values()) >= 5 and not ended:
                os.kill(pick(tree, what), signal.SIGKILL)
                ended.append(time.monotonic())

    result = run(
        tmp_path / "run",
        workflow=Sequence("a"),
        agents=agents,
        source=rows,
        engine="local",
        in_flight=8,
        config={"llm.name": "v"},
        hooks=[Kill()],
    )
    outcomes = result.summary["outcomes"]
    assert ended and outcomes.keys() <= {"completed", "truncated"} and sum(outcomes.values()) == 40
    until(lambda: not left_of(set(tree)), 60)
    until(lambda: [each["state"] for each in status()["endpoints"]] == ["up"] * REPLICAS)
    note("killed", process=what, back_after=round(time.monotonic() - ended[0]))
    assert status()["endpoints"][0]["restarts"] == first.get("restarts", 0) + 1
    with urlopen(status()["endpoints"][0]["url"] + "/models") as answer:
        assert {model["id"] for model in json.load(answer)["data"]} == {"smollm2", "tuned"}


def test_a_killed_supervisor_leaves_nothing(fleets: Path) -> None:
    free = psutil.virtual_memory().available
    left = processes()
    used = sum(psutil.Process(pid).memory_full_info().pss for pid in left)
    os.kill(status()["supervisor"]["pid"], signal.SIGKILL)
    seconds = until(lambda: not left_of(left), 60)
    assert "its supervisor is gone, and its servers with it" in peerloom("serve", "status", "v")
    assert "its supervisor was gone already" in peerloom("serve", "down", "v")
    freed = psutil.virtual_memory().available - free
    note("killed", process="supervisor", seconds=round(seconds, 1), freed=round(freed / 2**30, 1))
    assert freed > used / 2
