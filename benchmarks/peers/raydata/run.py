"""Ray Data in batched stages, the stages' batches adding up to what is in flight.

Mini-coral is six stages of calls; nr is filter, score and question, each a stage whose batch is done when its
longest reply is there.
"""

import asyncio
import os
import sys
import time
from pathlib import Path

import aiohttp
import orjson
import ray

COMMON = str(Path(__file__).parents[1] / "common")
sys.path.insert(0, COMMON)
import work  # noqa: E402


class Stage:
    """Calls of one stage for a batch of rows, all at once; the replies go into column `into`."""

    def __init__(self, path, number):
        self.spec = work.Spec(path)
        self.number = number
        self.session = None
        self.loop = asyncio.new_event_loop()

    def asked(self, row):
        """The messages, and the longest reply."""
        if self.spec.workload == "nr":
            return work.step(self.spec, row, self.number), int(row["tokens"][self.number])
        turn, reads = divmod(self.number, 2)
        if reads:
            return work.extract(self.spec, row[f"said{self.number - 1}"]), None
        statements = [(who, row[f"said{2 * n}"]) for n, who in enumerate(work.SPEAKERS[:turn])]
        return work.speak(self.spec, row, work.SPEAKERS[turn], statements), None

    async def call(self, row):
        messages, longest = self.asked(row)
        body = {"model": self.spec.model, "messages": messages}
        if longest:
            body["max_tokens"] = longest
        async with self.session.post(
            f"{self.spec.url}/chat/completions", data=orjson.dumps(body)
        ) as response:
            response.raise_for_status()
            return orjson.loads(await response.read())["choices"][0]["message"]["content"]

    def __call__(self, batch):
        return self.loop.run_until_complete(self.answered(batch))

    async def answered(self, batch):
        if self.session is None:
            headers = {"content-type": "application/json"}
            self.session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                headers=headers,
                timeout=aiohttp.ClientTimeout(None),
            )
        count = len(next(iter(batch.values())))
        rows = [{name: column[n] for name, column in batch.items()} for n in range(count)]
        batch[f"said{self.number}"] = await asyncio.gather(*(self.call(row) for row in rows))
        if self.spec.workload == "mini-coral" and self.number % 2:
            found = [work.letter(self.spec, text) or "" for text in batch[f"said{self.number}"]]
            batch[f"letter{self.number}"] = found
        return batch


def main(spec):
    os.environ["PYTHONPATH"] = COMMON  # of its workers
    ray.init(address="local", num_cpus=8, include_dashboard=False, log_to_driver=False)
    stages = 3 if spec.workload == "nr" else 6
    size = max(1, spec.in_flight // stages)
    data = ray.data.from_items(spec.rows_, override_num_blocks=max(1, -(-spec.tasks // size)))
    for number in range(stages):
        data = data.map_batches(
            Stage,
            fn_constructor_args=(sys.argv[1], number),
            batch_size=size,
            concurrency=1,
            num_cpus=0.1,
        )
        if spec.workload == "nr" and number == 0:
            data = data.filter(lambda row: bool(row["keep"]))
    begin = time.time()
    done = sum(len(next(iter(batch.values()))) for batch in data.iter_batches(batch_size=None))
    kept = sum(row["keep"] for row in spec.rows_) if spec.workload == "nr" else spec.tasks
    assert done == kept, (done, kept)
    work.said(begin, spec.tasks)


main(work.spec())
