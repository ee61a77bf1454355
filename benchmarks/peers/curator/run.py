"""Mini-coral as six blocks, one after the other over all rows: each waits for the one before to end."""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "common"))
import offline
import work

spec = work.spec()
os.environ.update(
    CURATOR_DISABLE_CACHE="1",
    CURATOR_CACHE_DIR=f"{spec.folder}/curator",
    CURATOR_VIEWER="0",
    TELEMETRY_ENABLED="false",
    HF_HUB_OFFLINE="1",
    HF_HOME=f"{spec.folder}/hf",
    OPENAI_API_KEY="none",
)
offline.without_tiktoken()
from bespokelabs import curator  # noqa: E402 - it reads the environment
from datasets import Dataset  # noqa: E402


class Call(curator.LLM):
    """One of the six calls."""

    number = 0

    def prompt(self, row):
        turn, reads = divmod(self.number, 2)
        if reads:
            return work.extract(spec, row[f"said{self.number - 1}"])
        statements = [(who, row[f"said{2 * n}"]) for n, who in enumerate(work.SPEAKERS[:turn])]
        return work.speak(spec, row, work.SPEAKERS[turn], statements)

    def parse(self, row, response):
        found = {**row, f"said{self.number}": response}
        if self.number % 2:
            found[f"letter{self.number}"] = work.letter(spec, response) or ""
        return found


def main():
    rows, begin = Dataset.from_list(spec.rows_), time.time()
    for number in range(6):
        block = type(f"Call{number}", (Call,), {"number": number})(
            model_name=spec.model,
            backend="openai",
            backend_params={
                "base_url": spec.url,
                "max_requests_per_minute": 10_000_000,
                "max_tokens_per_minute": 10_000_000_000,
                "max_concurrent_requests": spec.in_flight,
                "max_retries": 0,
                "request_timeout": 3_600,
            },
        )
        done = block(rows)
        rows = getattr(done, "dataset", done)
    assert len(rows) == spec.tasks, (len(rows), spec.tasks)
    work.said(begin, len(rows))


if __name__ == "__main__":
    main()
