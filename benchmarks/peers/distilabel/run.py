"""Mini-coral as ten steps, each a process, that hand on batches; those add up to what is in flight."""

import os
import sys
import time
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

from distilabel.models import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts

sys.path.insert(0, str(Path(__file__).parents[1] / "common"))
sys.path.insert(0, str(Path(__file__).parent))
import work
from steps import Call, Match

CALLS = 6


def main(spec):
    size, path = max(1, spec.in_flight // CALLS), sys.argv[1]
    with Pipeline(name="mini-coral", cache_dir=spec.folder) as pipeline:
        step = LoadDataFromDicts(data=spec.rows_, batch_size=size)
        for number in range(CALLS):
            llm = OpenAILLM(
                model=spec.model,
                base_url=spec.url,
                api_key="none",
                max_retries=0,
                timeout=3_600,
                generation_kwargs={"max_new_tokens": 1_000},
            )
            call = Call(
                name=f"call{number}",
                number=number,
                path=path,
                llm=llm,
                input_batch_size=size,
                add_raw_input=False,
                add_raw_output=False,
            )
            step >> call
            step = call
            if number % 2:
                match = Match(name=f"match{number}", number=number, path=path, input_batch_size=size)
                step >> match
                step = match
    begin = time.time()
    done = pipeline.run(use_cache=False)["default"]["train"]
    assert len(done) == spec.tasks, (len(done), spec.tasks)
    assert all(done[f"said{CALLS - 1}"])
    work.said(begin, len(done))


if __name__ == "__main__":
    main(work.spec())
