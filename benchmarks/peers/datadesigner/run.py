"""Mini-coral as six text columns and three expressions; a conversation is one message: it has no turns."""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "common"))
import offline
import work

spec = work.spec()
os.environ.update(
    DATA_DESIGNER_HOME=f"{spec.folder}/home",
    NEMO_TELEMETRY_ENABLED="false",
    DISABLE_TELEMETRY="1",
    DO_NOT_TRACK="1",
    HF_HUB_OFFLINE="1",
)
offline.without_tiktoken()
import data_designer.config as dd  # noqa: E402 - it reads the environment
import pandas  # noqa: E402
from data_designer.interface import DataDesigner  # noqa: E402


def columns():
    """What each column asks: of a speaker the question and all that was said, of a reader the last words."""
    for number in range(6):
        turn, reads = divmod(number, 2)
        if reads:
            prompt = f"{{{{ said{number - 1} }}}}"
        else:
            prompt = "\n\n".join(["{{ opening }}", *(f"{{{{ said{2 * n} }}}}" for n in range(turn))])
        yield dd.LLMTextColumnConfig(
            name=f"said{number}",
            prompt=prompt,
            system_prompt=spec.extractor if reads else spec.speaker,
            model_alias="model",
        )
        if reads:
            yield dd.ExpressionColumnConfig(name=f"letter{number}", expr=f"{{{{ said{number} }}}}")


def main():
    model = dd.ModelConfig(
        alias="model",
        model=spec.model,
        provider="simulated",
        skip_health_check=True,
        inference_parameters=dd.ChatCompletionInferenceParams(
            max_parallel_requests=spec.in_flight, timeout=3_600
        ),
    )
    provider = dd.ModelProvider(name="simulated", endpoint=spec.url, api_key="none")
    designer = DataDesigner(artifact_path=f"{spec.folder}/artifacts", model_providers=[provider])
    run = {"buffer_size": spec.in_flight, "max_in_flight_tasks": spec.in_flight}
    known = dd.RunConfig.model_fields
    designer.set_run_config(dd.RunConfig(**{name: value for name, value in run.items() if name in known}))
    builder = dd.DataDesignerConfigBuilder(model_configs=[model])
    seed = pandas.DataFrame({"opening": [work.opening(row) for row in spec.rows_]})
    builder.with_seed_dataset(dd.DataFrameSeedSource(df=seed))
    for column in columns():
        builder.add_column(column)
    begin = time.time()
    done = designer.create(builder, num_records=spec.tasks).load_dataset()
    assert len(done) == spec.tasks, (len(done), spec.tasks)
    work.said(begin, len(done))


main()
