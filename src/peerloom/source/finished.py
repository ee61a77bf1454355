"""The rows of a finished run as the input of another: what one run made, the next works on.

A run directory's format is read here as that of any input: `state.json` says how the run ended, and
`data/part-*.jsonl` are its completed rows, whole and final once it has finished.
"""

import os
from pathlib import Path
from typing import Any, cast

import orjson

from peerloom.errors import SourceError
from peerloom.source.formats.jsonl import JsonlPart
from peerloom.source.storage.files import local_file


def is_run(folder: str) -> bool:
    """Whether a folder is the directory of a run."""
    return {"run.lock", "state.json", "data"} <= set(os.listdir(folder))


def run_parts(folder: str, whole: bool) -> list[JsonlPart]:
    """The completed rows of a run, in the order in which they were written.

    Args:
        folder: the run directory.
        whole: each row as it is there, for a field of it to be picked; else `carry_on` makes an input of it.

    Raises:
        SourceError: if the run has not finished, is damaged, or completed no row.
    """
    how = _how(folder)
    if how != "finished":
        raise SourceError(
            f"{folder}: that run has not finished (its state is {how}): go on with it first "
            f"(peerloom resume {folder}), or take what there is as plain rows: {folder}/data/*.jsonl"
        )
    names = sorted(str(path) for path in Path(folder, "data").glob("part-*.jsonl"))
    files = [local_file(name) for name in names if os.path.getsize(name)]
    if not files:
        raise SourceError(f"{folder}: that run completed no row")
    return [JsonlPart(file, as_it_is if whole else carry_on, kind="run") for file in files]


def carry_on(value: Any) -> tuple[Any, str | int | None]:
    """The input that a run's row makes, and its label.

    That is the row's own input, with what the run found over it: the fields of its result if that is an
    object, else a field `result`.
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


def as_it_is(value: Any) -> tuple[Any, str | int | None]:
    """A run's row and its label."""
    return value, _label(cast("dict[str, Any]", value)) if isinstance(value, dict) else None


def _label(row: dict[str, Any]) -> str | int | None:
    provenance = row.get("provenance")
    label = cast("dict[str, Any]", provenance).get("label") if isinstance(provenance, dict) else None
    return label if isinstance(label, str | int) and not isinstance(label, bool) else None


def _how(folder: str) -> str:
    try:
        state = orjson.loads(Path(folder, "state.json").read_bytes())
        return str(state["how"])
    except FileNotFoundError as error:
        raise SourceError(f"{folder} is not the directory of a run: there is no state.json in it") from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise SourceError(f"{folder}/state.json cannot be read, so nobody knows what became of it") from error
