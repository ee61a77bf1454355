"""Read the completed rows of a finished run as the input of another run.

In a run directory, `.peerloom/state.json` has the run's state, and `data/part-*.jsonl` its completed rows,
which are final once the run has finished.
"""

import os
from pathlib import Path
from typing import Any, cast

import orjson

from peerloom.errors import SourceError
from peerloom.source.format import Opening, SourceFormat
from peerloom.source.parts.json_lines import JsonlPart
from peerloom.source.storage.files import local_file
from peerloom.stored import from_stored

_STATE = ".peerloom/state.json"


class FinishedRun(SourceFormat):
    """The completed rows of a finished run."""

    def claims(self, path: str) -> bool:
        """Return whether the path is the directory of a run."""
        folder = os.path.expanduser(path)
        return os.path.isfile(os.path.join(folder, _STATE)) and os.path.isdir(os.path.join(folder, "data"))

    def parts(self, path: str, opening: Opening) -> list[JsonlPart]:
        """Return one part for each file of rows."""
        folder = os.path.expanduser(path)
        if not os.path.isdir(folder):
            raise SourceError(f"{path} is not the directory of a run (source.format=run)")
        return run_parts(folder, opening.field is not None)


def run_parts(folder: str, whole: bool) -> list[JsonlPart]:
    """Return the completed rows of a run, in the order in which they were written."""
    state = _state(folder)
    if state != "finished":
        raise SourceError(
            f"{folder}: that run has not finished (its state is {state}): resume it first "
            f"(peerloom resume {folder}), or read its present rows as a plain file: {folder}/data/*.jsonl"
        )
    names = sorted(str(path) for path in Path(folder, "data").glob("part-*.jsonl"))
    files = [local_file(name) for name in names if os.path.getsize(name)]
    if not files:
        raise SourceError(f"{folder}: that run completed no row")
    return [JsonlPart(file, whole_row if whole else to_input, kind="run") for file in files]


def to_input(value: Any) -> tuple[Any, str | int | None, str]:
    """Convert an output row to an input row, and return it with its label and its parent, which is that row.

    The input row is the input of the output row, updated with the fields of the result if that is an object,
    else with a field `result`.
    """
    if not isinstance(value, dict):
        return value, None, ""
    row = from_stored(cast("dict[str, Any]", value))
    given, result = row.get("input"), row.get("result")
    fields = cast("dict[str, Any]", given) if isinstance(given, dict) else {}
    if isinstance(result, dict):
        fields = {**fields, **cast("dict[str, Any]", result)}
    elif result is not None:
        fields = {**fields, "result": result}
    return fields, *_origin(row)


def whole_row(value: Any) -> tuple[Any, str | int | None, str]:
    """Return an output row, its label, and its parent, which is that row."""
    if not isinstance(value, dict):
        return value, None, ""
    row = from_stored(cast("dict[str, Any]", value))
    return row, *_origin(row)


def _origin(row: dict[str, Any]) -> tuple[str | int | None, str]:
    """Return the label of a row, and its name, which consists of those of its run and task."""
    found = row.get("provenance")
    provenance = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    label = provenance.get("label")
    is_label = isinstance(label, str | int) and not isinstance(label, bool)
    return label if is_label else None, f"{provenance.get('run', '')}/{row.get('id', '')}"


def _state(folder: str) -> str:
    try:
        return str(orjson.loads(Path(folder, _STATE).read_bytes())["how"])
    except FileNotFoundError as error:
        raise SourceError(f"{folder} is not the directory of a run: there is no {_STATE} in it") from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise SourceError(f"{folder}/{_STATE} cannot be read, so the state of that run is unknown") from error


FORMAT = FinishedRun
