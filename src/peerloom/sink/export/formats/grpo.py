"""Write the answers to each prompt with their rewards, for reinforcement learning in groups (GRPO)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from peerloom.sink.export.conversation import SkippedRow
from peerloom.sink.export.exporter import CommittedRows
from peerloom.sink.export.groups import ScoredExporter, shared_prompt


@dataclass(frozen=True)
class GrpoExporter(ScoredExporter):
    """`{"prompt", "answers", "rewards"}` from several answers to a prompt.

    The rewards are the scores. `token_ids` and `logprobs`, a list for each answer, are added if the server
    returned them for all, and each is one message. The field `completions` is left to TRL's trainer, which
    gives reward functions those that it generates.
    """

    suffix: ClassVar[str] = ".grpo.jsonl"

    def records(self, rows: CommittedRows) -> Iterator[dict[str, Any]]:
        """Yield the record of each prompt that has several answers."""
        for answers in self.groups(rows):
            try:
                prompt = shared_prompt(answers)
            except SkippedRow as reason:
                rows.skipped[str(reason)] += 1
                continue
            texts = [answer.messages[len(prompt) :] for answer in answers]
            record: dict[str, Any] = {
                "prompt": prompt,
                "answers": texts,
                "rewards": [answer.score for answer in answers],
            }
            if all(len(each) == 1 for each in texts):
                record |= _tokens([answer.turn for answer in answers])
            if answers[0].tools:
                record["tools"] = answers[0].tools
            yield record


def _tokens(turns: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if all(turn.get("token_ids") for turn in turns):
        found["token_ids"] = [turn["token_ids"] for turn in turns]
    if all(turn.get("logprobs") for turn in turns):
        found["logprobs"] = [[token["logprob"] for token in turn["logprobs"]] for turn in turns]
    return found


EXPORTER = GrpoExporter
