"""`state.json`: what a run directory knows of its run between sessions.

A session is one process's work on the run; each has a number, written before anything else is done in
it. The fingerprint says by what the run is known again: a later session with another one is refused.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, cast

import msgspec
import orjson

from peerloom.errors import RunDirError
from peerloom.sink.layout import STATE

FORMAT = 1
MOST_SHOWN = 20

How = Literal["running", "finished", "drained", "suspended", "failed"]


class Fingerprint(msgspec.Struct):
    """What decides a run's rows, by dotted key.

    `same` must stay as it is. What is in `grows` may only become more, None being all there is.
    """

    same: dict[str, Any] = {}
    grows: dict[str, int | None] = {}

    def __post_init__(self) -> None:
        self.same = dict(_flat(orjson.loads(orjson.dumps(self.same)), ""))


class State(msgspec.Struct, kw_only=True):
    """The content of `state.json`.

    `session` is the number of the last session, `began` that of the run's first one, and `how` is how the
    last one ended (`running`: it goes on, or was killed). `wall_seconds` and `cpu_seconds` are those of all
    sessions of the run, as far as they were written down; in `startup_seconds` of the wall time no task could
    begin yet. `model` is what the service said that it is, empty
    if it did not.
    """

    format: int = FORMAT
    session: int
    began: int = 1
    peerloom: str
    how: How = "running"
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    startup_seconds: float = 0.0
    model: str = ""
    fingerprint: Fingerprint


_decoder = msgspec.json.Decoder(State)


def read_state(run_dir: Path) -> State | None:
    """The state of a run directory; None if it has none.

    Raises:
        RunDirError: if it is damaged, or was written by a release that this one cannot read.
    """
    path = run_dir / STATE
    try:
        state = _decoder.decode(path.read_bytes())
    except FileNotFoundError:
        return None
    except (msgspec.MsgspecError, OSError) as error:
        raise RunDirError(f"{path} cannot be read ({error}), so the run cannot go on there") from error
    if state.format != FORMAT:
        raise RunDirError(
            f"{path} is of format {state.format}, but this release reads {FORMAT}: "
            "go on with the release that began the run"
        )
    return state


def differences(was: Fingerprint, now: Fingerprint) -> list[str]:
    """A line for each key in which two fingerprints differ so that the run is another one."""
    found = [
        f"{key}: was {_shown(was.same, key)}, now {_shown(now.same, key)}"
        for key in dict.fromkeys((*was.same, *now.same))
        if key not in was.same or key not in now.same or was.same[key] != now.same[key]
    ]
    for key, more in now.grows.items():
        less = was.grows.get(key)
        if more is not None and (less is None or more < less):
            found.append(
                f"{key}: was {'all' if less is None else less}, now {more}: it may grow, but not shrink"
            )
    if len(found) > MOST_SHOWN:
        found[MOST_SHOWN:] = [f"... and {len(found) - MOST_SHOWN} more"]
    return found


def _shown(values: Mapping[str, Any], key: str) -> str:
    return orjson.dumps(values[key]).decode() if key in values else "not there"


def _flat(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """A value's leaves by dotted key; a list is one leaf unless it holds objects."""
    if isinstance(value, dict) and (value or not key):
        for name, inner in cast("dict[str, Any]", value).items():
            yield from _flat(inner, f"{key}.{name}" if key else name)
    elif isinstance(value, list) and any(isinstance(each, dict) for each in cast("list[Any]", value)):
        for number, inner in enumerate(cast("list[Any]", value)):
            yield from _flat(inner, f"{key}[{number}]")
    else:
        yield key, value
