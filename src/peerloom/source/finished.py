"""Read the completed rows of a finished run as the input of another run.

In a run directory, `state.json` has the run's state, and `data/part-*.jsonl` its completed rows, which are
final once the run has finished.
"""

import os
from pathlib import Path
from typing import Any, cast

import orjson

from peerloom.errors import SourceError
from peerloom.source.formats.jsonl import JsonlPart
from peerloom.source.storage.files import local_file


def is_run(folder: str) -> bool:
    """Return whether a folder is the directory of a run."""
    return {"run.lock", "state.json", "data"} <= set(os.listdir(folder))


def run_parts(folder: str, whole: bool) -> list[JsonlPart]:
    """Return the completed rows of a run, in the order in which they were written.

    Args:
        folder: the run directory.
        whole: whether to return output rows unchanged, to pick a field of them; else they are converted to
            inputs by `to_input`.

    Raises:
        SourceError: if the run has not finished, is damaged, or completed no row.
    """
    state = _state(folder)
    if state != "finished":
        raise SourceError(
            f"{folder}: that run has not finished (its state is {state}): go on with it first "
            f"(peerloom resume {folder}), or take what there is as plain rows: {folder}/data/*.jsonl"
        )
    names = sorted(str(path) for path in Path(folder, "data").glob("part-*.jsonl"))
    files = [local_file(name) for name in names if os.path.getsize(name)]
    if not files:
        raise SourceError(f"{folder}: that run completed no row")
    return [JsonlPart(file, with_label if whole else to_input, kind="run") for file in files]


def to_input(value: Any) -> tuple[Any, str | int | None]:
    """Convert an output row to an input row, and return it with its label.

    The input row is the input of the output row, updated with the fields of the result if that is an object,
    else with a field `result`.
    """
    if not isinstance(value, dict):
        return value, None
    row = cast("dict[str, Any]", value)
    given, result = row.get("input"), row.get("result")
    fields = cast("dict[str, Any]", given) if isinstance(given, dict) else {}
    if isinstance(result, dict):
        fields = {**fields, **cast("dict[str, Any]", result)}
    elif result is not None:
        fields = {**fields, "result": result}
    return fields, _label(row)


def with_label(value: Any) -> tuple[Any, str | int | None]:
    """Return an output row and its label."""
    return value, _label(cast("dict[str, Any]", value)) if isinstance(value, dict) else None


def _label(row: dict[str, Any]) -> str | int | None:
    provenance = row.get("provenance")
    label = cast("dict[str, Any]", provenance).get("label") if isinstance(provenance, dict) else None
    return label if isinstance(label, str | int) and not isinstance(label, bool) else None


def _state(folder: str) -> str:
    try:
        return str(orjson.loads(Path(folder, "state.json").read_bytes())["how"])
    except FileNotFoundError as error:
        raise SourceError(f"{folder} is not the directory of a run: there is no state.json in it") from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise SourceError(f"{folder}/state.json cannot be read, so nobody knows what became of it") from error
