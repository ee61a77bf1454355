"""Judges a run from outside: its rows and its calls, counted from files, without a line of Peerloom's code.

    python tests/chaos/checker.py RUN_DIR --source rows.jsonl --calls calls.jsonl --faults faults.jsonl

What it reads, and how each counts:

- **Rows.** Once the run has ended every line of every part below `data/` and `rejected/` is a row, whatever
  an index says. A line that is torn or no JSON, or in the wrong folder for its outcome, is a finding.
- **Admitted.** Each line of the source that is not blank is one row to do, `trials` times. Its id is
  `<file>-<line>-<trial>`, all from 0. `lost` are the ids without a line, `duplicated` the lines beyond the
  first of each id; a line of an id that was never admitted is a finding.
- **Calls.** A line of the server's log with status 200 is a call that was served, and has to be paid. Its
  *path* is its session, `<id>/<role>/<call>x<n>`, which says that the turn asks n equal requests there: n
  servings of a path are needed, every further one is *extra*. All servings of a path have the same request,
  or that is a finding.
- **calls_finished** are the calls that the rows stand on: the sum of n over the paths that their turns name,
  which must be the sum of their turns' `usage.calls`. Each of them must have been served (unless the server
  was killed during that turn: it may have died between the reply and its log; counted as `calls_unlogged`).
- **calls_repaid.** An extra serving repays an earlier serving of its path, each of them at most one. It is
  excused only by an interruption: a process that made or served calls (a peer, the model's server) and died
  between the moments `after` and `before`. It excuses the pair if the earlier request came before it was
  dead, its reply was sent no sooner than 250 ms before `after` and no later than a second past `before` (so
  long may a busy server answer the dead), and the later request came no sooner than `after`. Everything else
  is `calls_repaid`: a call first served more than 250 ms before the kill, a call that was served again though
  nobody died. Pairs that are excused are `repaid_in_window`; or `repaid_after_suspicion`, if the process was
  alive, but stopped or cut off since `after` and killed at `before`: what was sent to it in that time nobody
  has seen. Those are bounded by the calls such processes can have had under way (`most`).

`calls_served` = `calls_finished` - `calls_unlogged` + `calls_repaid` + both excused kinds + `calls_of_failed`
(of rows that failed, in turns that they never finished).

The faults' file is the harness's diary, a JSON object a line: `{"fault": kind, "t": seconds}` for each time
it struck, `{"interrupted": name, "after": ..., "before": ..., "suspected": bool, "most": n}` for each process
that died of it.

Exit code 0 if nothing was lost, duplicated or repaid and there is no finding, else 1. The last line on stdout
is one JSON object; the findings are on stderr.
"""

import argparse
import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

WINDOW = 0.25
"""Seconds before a kill in which a call may have been served for nothing."""
NOTICED = 1.0
"""Seconds in which a busy server notices that a client is gone; until then it answers the dead."""

OUTCOMES = ("completed", "filtered", "truncated", "failed")
_PATH = re.compile(r"(?P<id>\d+-\d+-\d+)/[^/]+/[^/]+x(?P<needed>\d+)")
_SHOWN = 10


class Serving(NamedTuple):
    """One served call: when its reply was sent, when its request came, and the request's hash."""

    sent: float
    received: float
    key: str


class Interruption(NamedTuple):
    """A process that died between two moments. If `suspected` it was silent, but alive, from the first on."""

    after: float
    before: float
    suspected: bool
    server: bool

    def excuses(self, earlier: Serving, later: Serving) -> bool:
        """Whether it can be why `later` was asked for although `earlier` was served."""
        in_time = self.after - WINDOW <= earlier.sent <= self.before + NOTICED
        return in_time and earlier.received <= self.before and later.received >= self.after


@dataclass
class Verdict:
    """What was counted, and in words what is wrong."""

    counts: dict[str, Any] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)

    def find(self, what: str, cases: Iterable[Any]) -> int:
        """A finding if there are any cases; how many there are."""
        listed = list(cases)
        if listed:
            more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
            self.findings.append(f"{what}: {', '.join(map(str, listed[:_SHOWN]))}{more}")
        return len(listed)


def judge(run_dir: Path, source: Path, calls: Path, faults: Path, trials: int = 1) -> Verdict:
    """Count everything; see above."""
    verdict = Verdict()
    struck, interruptions, most = _read_faults(faults)
    verdict.counts["kills"] = dict(sorted(struck.items()))
    rows = _judge_rows(verdict, run_dir, admitted_ids(source, trials))
    served = _read_calls(verdict, calls, servers=sum(each.server for each in interruptions))
    _judge_calls(verdict, rows, served, interruptions, most)
    return verdict


def admitted_ids(source: Path, trials: int) -> set[str]:
    """The ids that a run over this file has to account for."""
    lines = source.read_bytes().split(b"\n")
    return {f"0-{row}-{trial}" for row, line in enumerate(lines) if line.strip() for trial in range(trials)}


def _judge_rows(verdict: Verdict, run_dir: Path, admitted: set[str]) -> dict[str, dict[str, Any]]:
    """The rows by id, after looking at every line there is."""
    lines: Counter[str] = Counter()
    rows: dict[str, dict[str, Any]] = {}
    torn: list[str] = []
    misplaced: list[str] = []
    for where, line in _part_lines(run_dir):
        row = _json_object(line)
        if row is None or not line.endswith(b"\n"):
            torn.append(where)
            continue
        identity, outcome = str(row.get("id")), row.get("outcome")
        lines[identity] += 1
        rows[identity] = row
        if outcome not in OUTCOMES or (outcome == "completed") is not where.startswith("data/"):
            misplaced.append(f"{where} ({outcome})")
    verdict.find("lines that are torn or no JSON", torn)
    verdict.find("lines in the wrong folder for their outcome", misplaced)
    verdict.find("rows that nobody admitted", sorted(lines.keys() - admitted))
    outcomes = Counter(row.get("outcome") for row in rows.values())
    verdict.counts |= {
        "admitted": len(admitted),
        "rows": sum(lines.values()),
        "outcomes": {str(outcome): count for outcome, count in sorted(outcomes.items(), key=str)},
        "lost": verdict.find("tasks without a row", sorted(admitted - lines.keys())),
        "duplicated": sum(lines.values()) - len(lines),
        "poison": sum(row.get("reason") == "poison" for row in rows.values()),
    }
    verdict.find("ids with more than one line", sorted(name for name, count in lines.items() if count > 1))
    if sum(outcomes[outcome] for outcome in OUTCOMES) != len(admitted):
        verdict.findings.append(
            f"the outcomes do not add up to the {len(admitted)} admitted: {dict(outcomes)}"
        )
    return rows


def _part_lines(run_dir: Path) -> Iterator[tuple[str, bytes]]:
    """Every line of every part with where it stands, its line end included."""
    for folder in ("data", "rejected"):
        for part in sorted((run_dir / folder).glob("*")):
            with part.open("rb") as file:
                for number, line in enumerate(file, 1):
                    yield f"{folder}/{part.name}:{number}", line


def _read_calls(verdict: Verdict, calls: Path, servers: int) -> dict[str, list[Serving]]:
    """The served calls by path, each path's in the order of their replies."""
    served: defaultdict[str, list[Serving]] = defaultdict(list)
    torn = nameless = 0
    with calls.open("rb") as file:
        for line in file:
            call = _json_object(line)
            if call is None or not line.endswith(b"\n"):
                torn += 1
            elif call["status"] == 200:
                if not _PATH.fullmatch(call["session"]):
                    nameless += 1
                served[call["session"]].append(Serving(call["t"], call["received"], call["key"]))
    if torn > servers:  # one at each death of the server, at most
        verdict.findings.append(
            f"{torn} lines of the log of calls are torn, with {servers} deaths of its server"
        )
    if nameless:
        verdict.findings.append(f"{nameless} calls have a session that names no path")
    for servings in served.values():
        servings.sort()
    changed = sorted(path for path, servings in served.items() if len({each.key for each in servings}) > 1)
    verdict.find("paths that were asked again with another request", changed)
    verdict.counts["calls_served"] = sum(map(len, served.values()))
    return dict(served)


def _judge_calls(
    verdict: Verdict,
    rows: dict[str, dict[str, Any]],
    served: dict[str, list[Serving]],
    interruptions: list[Interruption],
    most: int,
) -> None:
    finished, unlogged = _finished(verdict, rows, served, interruptions)
    tally: Counter[str] = Counter()
    repaid: dict[str, str] = {}
    for path, servings in served.items():
        needed = _needed(path)
        if path not in finished:
            tally["failed"] += min(needed, len(servings))
        for kind in excuses(servings, needed, interruptions):
            tally[kind] += 1
            if kind == "repaid":
                repaid[path] = f"{path} at {', '.join(f'{each.sent:.3f}' for each in servings)}"
    verdict.find("calls paid again", repaid.values())
    ended = {identity for identity, row in rows.items() if row.get("outcome") != "completed"}
    strays = sorted(path for path in served if path not in finished and path.split("/")[0] not in ended)
    verdict.find("paths that were served and are in no row", strays)
    if tally["suspicion"] > most:
        verdict.findings.append(
            f"{tally['suspicion']} calls paid again after suspicions, which can have held {most} at most"
        )
    verdict.counts |= {
        "calls_finished": sum(map(_needed, finished)),
        "calls_repaid": tally["repaid"],
        "repaid_in_window": tally["window"],
        "repaid_after_suspicion": tally["suspicion"],
        "calls_of_failed": tally["failed"],
        "calls_unlogged": unlogged,
    }


def excuses(servings: list[Serving], needed: int, interruptions: list[Interruption]) -> Iterator[str]:
    """What each serving of a path beyond the needed ones is: `window`, `suspicion` or `repaid`."""
    unpaired = servings[:needed]
    for later in servings[needed:]:
        pairs = [
            (each.suspected, earlier)
            for each in interruptions
            for earlier in unpaired
            if each.excuses(earlier, later)
        ]
        if pairs:
            suspected, earlier = min(pairs)
            unpaired.remove(earlier)
        unpaired.append(later)
        yield ("suspicion" if suspected else "window") if pairs else "repaid"


def _finished(
    verdict: Verdict,
    rows: dict[str, dict[str, Any]],
    served: dict[str, list[Serving]],
    interruptions: list[Interruption],
) -> tuple[set[str], int]:
    """The paths that the rows stand on, and how many of their calls the server's death kept from its log."""
    finished: set[str] = set()
    twice: list[str] = []
    unserved: list[str] = []
    unlogged = 0
    for identity, row in rows.items():
        for turn in row.get("turns", ()):
            value = _json_object((turn.get("value") or "").encode()) or {}  # it is JSON text in the files
            paths = value.get("paths", [])
            begun = turn.get("started", 0.0)
            restarted = any(
                each.server and begun <= each.before and each.after <= begun + turn.get("seconds", 0.0)
                for each in interruptions
            )
            for path in paths:
                missing = max(0, _needed(path) - len(served.get(path, ())))
                unlogged += missing if restarted else 0
                unserved += [path] if missing and not restarted else []
            twice += [path for path in paths if path in finished or path.split("/")[0] != identity]
            finished.update(paths)
            if turn.get("usage", {}).get("calls", 0) != sum(map(_needed, paths)):
                verdict.findings.append(f"row {identity}: the usage of turn {turn['agent']} is not its calls")
        if row["usage"]["calls"] != sum(turn.get("usage", {}).get("calls", 0) for turn in row["turns"]):
            verdict.findings.append(f"row {identity}: its usage is not the sum of its turns")
    verdict.find("calls in rows that were never served", unserved)
    verdict.find("paths in two turns, or in another's row", twice)
    return finished, unlogged


def _needed(path: str) -> int:
    """How many servings of a path its turn needs."""
    match = _PATH.fullmatch(path)
    return int(match["needed"]) if match else 1


def _read_faults(faults: Path) -> tuple[Counter[str], list[Interruption], int]:
    """How often each fault struck, who died of it, and how many calls the suspected can have had."""
    struck: Counter[str] = Counter()
    interruptions: list[Interruption] = []
    most = 0
    for line in faults.read_bytes().splitlines():
        entry = json.loads(line)
        if "fault" in entry:
            struck[entry["fault"]] += 1
        else:
            server = entry["interrupted"] == "llm"
            suspected = entry.get("suspected", False)
            interruptions.append(Interruption(entry["after"], entry["before"], suspected, server))
            most += entry.get("most", 0) if suspected else 0
    return struck, interruptions, most


def _json_object(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def passed(verdict: Verdict) -> bool:
    """Whether nothing is wrong."""
    return not verdict.findings and not any(
        verdict.counts[name] for name in ("lost", "duplicated", "calls_repaid")
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Count a run's rows and calls from outside.")
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--calls", type=Path, required=True)
    parser.add_argument("--faults", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=1)
    given = parser.parse_args()
    verdict = judge(given.run_dir, given.source, given.calls, given.faults, given.trials)
    for finding in verdict.findings:
        print(finding, file=sys.stderr)
    print(json.dumps(verdict.counts))
    return 0 if passed(verdict) else 1


if __name__ == "__main__":
    sys.exit(main())
