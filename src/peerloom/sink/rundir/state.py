"""Define `.peerloom/state.json`, the state of a run between sessions, and read it.

A session is the work of one process on the run; each has a number, which is written before any other work.
The fingerprint identifies the run: a later session with a different one is refused.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, cast

import msgspec
import orjson

from peerloom.errors import RunDirError
from peerloom.sink.layout import STATE, SUMMARY

FORMAT = 1
MAX_SHOWN = 20

How = Literal["running", "finished", "drained", "suspended", "failed"]


class Fingerprint(msgspec.Struct):
    """The values that determine a run's rows, by dotted key.

    The values in `same` must not change. Those in `grows` may only increase; None means everything.
    """

    same: dict[str, Any] = {}
    grows: dict[str, int | None] = {}

    def __post_init__(self) -> None:
        self.same = dict(_flat(orjson.loads(orjson.dumps(self.same)), ""))


class State(msgspec.Struct, kw_only=True):
    """The content of `state.json`.

    `session` is the number of the last session, `began` that of the run's first one, and `how` is how the
    last one ended (`running`: it is active, or was killed). `wall_seconds` and `cpu_seconds` are the sums
    over all sessions of the run, as far as recorded; `startup_seconds` is the part of the wall time before
    tasks could begin. `model` is the name that the service reported, empty if it reported none. `programs`
    are the digests of the versions of the program, in order, each with the first session that used it.
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
    programs: list[tuple[int, str]] = []
    fingerprint: Fingerprint


_decoder = msgspec.json.Decoder(State)


def read_state(run_dir: Path) -> State | None:
    """Return the state of a run directory; None if it has none."""
    path = run_dir / STATE
    try:
        state = _decoder.decode(path.read_bytes())
    except FileNotFoundError:
        return None
    except (msgspec.MsgspecError, OSError) as error:
        raise RunDirError(f"{path} cannot be read ({error}), so the run cannot be resumed") from error
    if state.format != FORMAT:
        raise RunDirError(
            f"{path} is of format {state.format}, but this release reads {FORMAT}: "
            "resume it with the release that started the run"
        )
    return state


def read_summary(run_dir: Path) -> dict[str, Any] | None:
    """Return the content of `summary.json`; None if it is missing or cannot be read."""
    try:
        return orjson.loads((run_dir / SUMMARY).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None


def differences(was: Fingerprint, now: Fingerprint) -> list[str]:
    """Return a line for each key whose change makes the run a different one."""
    found = [
        f"{key}: was {_shown(was.same, key)}, now {_shown(now.same, key)}"
        for key in dict.fromkeys((*was.same, *now.same))
        if key not in was.same or key not in now.same or was.same[key] != now.same[key]
    ]
    for key, new in now.grows.items():
        old = was.grows.get(key)
        if new is not None and (old is None or new < old):
            found.append(
                f"{key}: was {'all' if old is None else old}, now {new}: it may grow, but not shrink"
            )
    if len(found) > MAX_SHOWN:
        found[MAX_SHOWN:] = [f"... and {len(found) - MAX_SHOWN} more"]
    return found


def _shown(values: Mapping[str, Any], key: str) -> str:
    return orjson.dumps(values[key]).decode() if key in values else "not there"


def _flat(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Yield a value's leaves by dotted key; a list is one leaf unless it holds objects."""
    if isinstance(value, dict) and (value or not key):
        for name, inner in cast("dict[str, Any]", value).items():
            yield from _flat(inner, f"{key}.{name}" if key else name)
    elif isinstance(value, list) and any(isinstance(each, dict) for each in cast("list[Any]", value)):
        for number, inner in enumerate(cast("list[Any]", value)):
            yield from _flat(inner, f"{key}[{number}]")
    else:
        yield key, value
