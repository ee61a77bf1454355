"""The judge of chaos runs, on made-up directories and logs: it finds what is planted, and nothing else."""

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import checker
import pytest

KILL = 1000.0


class Evidence:
    """A run of two tasks that went well: each asked three calls, two of them equal. Tests spoil it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows = [row(0), row(1)]
        self.rejected: list[dict[str, Any]] = []
        self.calls = [*calls(0, sent=990.0), *calls(1, sent=991.0)]
        self.diary: list[dict[str, Any]] = [{"fault": "peer", "t": KILL}, died("peer-0.1", KILL)]
        self.raw = b""
        """What a part ends with, after its rows."""

    def judge(self, trials: int = 1) -> checker.Verdict:
        source, log, diary = (self.folder / name for name in ("rows.jsonl", "calls.jsonl", "faults.jsonl"))
        source.write_text('{"n": 0}\n\n{"n": 1}'.replace("\n\n", "\n"))
        run_dir = self.folder / "run"
        for name, rows in (("data", self.rows), ("rejected", self.rejected)):
            (run_dir / name).mkdir(parents=True, exist_ok=True)
            raw = self.raw if name == "data" else b""
            (run_dir / name / "part-000-0001-0000.jsonl").write_bytes(lines(rows) + raw)
        log.write_bytes(lines(self.calls))
        diary.write_bytes(lines(self.diary))
        return checker.judge(run_dir, source, log, diary, trials)


def row(number: int, outcome: str = "completed") -> dict[str, Any]:
    paths = [f"0-{number}-0/ask/pairx2", f"0-{number}-0/ask/onlyx1"]
    turn = {
        "agent": "ask",
        "value": json.dumps({"paths": paths}),
        "usage": {"calls": 3},
        "started": 980.0,
        "seconds": 15.0,
    }
    return {
        "id": f"0-{number}-0",
        "outcome": outcome,
        "reason": "",
        "turns": [turn],
        "usage": {"calls": 3},
    }


def calls(number: int, sent: float) -> list[dict[str, Any]]:
    return [call(f"0-{number}-0/ask/{name}", sent) for name in ("pairx2", "pairx2", "onlyx1")]


def call(path: str, sent: float, **other: Any) -> dict[str, Any]:
    return {"t": sent, "received": sent - 0.5, "key": path, "session": path, "status": 200, **other}


def died(name: str, at: float, **other: Any) -> dict[str, Any]:
    return {"interrupted": name, "after": at, "before": at + 0.01, "suspected": False, "most": 2, **other}


def lines(entries: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)


@pytest.fixture
def evidence(tmp_path: Path) -> Evidence:
    return Evidence(tmp_path)


def test_a_good_run(evidence: Evidence) -> None:
    verdict = evidence.judge()
    assert verdict.findings == []
    assert checker.passed(verdict)
    assert verdict.counts == {
        "kills": {"peer": 1},
        "admitted": 2,
        "rows": 2,
        "outcomes": {"completed": 2},
        "lost": 0,
        "duplicated": 0,
        "poison": 0,
        "calls_served": 6,
        "calls_finished": 6,
        "calls_repaid": 0,
        "repaid_in_window": 0,
        "repaid_after_suspicion": 0,
        "calls_of_failed": 0,
        "calls_unlogged": 0,
    }


def test_a_gap(evidence: Evidence) -> None:
    del evidence.rows[1]
    verdict = evidence.judge()
    assert verdict.counts["lost"] == 1
    assert not checker.passed(verdict)
    assert any("paths that were served and are in no row" in finding for finding in verdict.findings)


def test_a_missing_trial(evidence: Evidence) -> None:
    assert evidence.judge(trials=2).counts["lost"] == 2


def test_a_row_twice_in_one_part(evidence: Evidence) -> None:
    evidence.rows.append(evidence.rows[0])
    verdict = evidence.judge()
    assert (verdict.counts["rows"], verdict.counts["duplicated"], verdict.counts["lost"]) == (3, 1, 0)
    assert not checker.passed(verdict)


def test_a_row_in_both_folders(evidence: Evidence) -> None:
    evidence.rejected.append(row(1, "failed"))
    assert evidence.judge().counts["duplicated"] == 1


def test_a_row_that_nobody_admitted(evidence: Evidence) -> None:
    evidence.rows.append(row(2))
    verdict = evidence.judge()
    assert "rows that nobody admitted: 0-2-0" in verdict.findings
    assert not checker.passed(verdict)


@pytest.mark.parametrize("raw", [b'{"id": "0-1', b'{"id": "0-1-0"}', b"\0\0\0\n", b"17\n"])
def test_a_torn_line(evidence: Evidence, raw: bytes) -> None:
    evidence.raw = raw
    verdict = evidence.judge()
    assert verdict.findings == ["lines that are torn or no JSON: data/part-000-0001-0000.jsonl:3"]
    assert not checker.passed(verdict)


@pytest.mark.parametrize("outcome", ["failed", "suspended"])
def test_a_row_in_the_wrong_folder(evidence: Evidence, outcome: str) -> None:
    evidence.rows[1]["outcome"] = outcome
    verdict = evidence.judge()
    assert any("wrong folder" in finding for finding in verdict.findings)
    assert not checker.passed(verdict)


def test_an_outcome_that_there_is_not(evidence: Evidence) -> None:
    evidence.rejected.append({**evidence.rows.pop(), "outcome": "suspended"})
    assert any("do not add up" in finding for finding in evidence.judge().findings)


def test_a_poisoned_task(evidence: Evidence) -> None:
    evidence.rows.pop()
    failed = row(1, "failed")
    evidence.rejected.append({**failed, "reason": "poison", "turns": [], "usage": {"calls": 0}})
    verdict = evidence.judge()
    assert checker.passed(verdict)
    assert (verdict.counts["poison"], verdict.counts["calls_of_failed"]) == (1, 3)


def test_a_call_served_long_before_the_kill(evidence: Evidence) -> None:
    evidence.calls.append(call("0-0-0/ask/onlyx1", KILL + 2))
    verdict = evidence.judge()
    assert verdict.counts["calls_repaid"] == 1
    assert not checker.passed(verdict)


def test_a_call_served_just_before_the_kill(evidence: Evidence) -> None:
    evidence.calls[2]["t"] = KILL - 0.2
    evidence.calls.append(call("0-0-0/ask/onlyx1", KILL + 2))
    verdict = evidence.judge()
    assert (verdict.counts["calls_repaid"], verdict.counts["repaid_in_window"]) == (0, 1)
    assert checker.passed(verdict)


@pytest.mark.parametrize(
    ("received", "sent", "excused"),
    [(-0.5, 0.9, True), (-0.5, 1.1, False), (0.1, 0.4, False), (-0.5, -0.26, False)],
)
def test_a_reply_to_the_dead(evidence: Evidence, received: float, sent: float, excused: bool) -> None:
    evidence.calls[2] |= {"t": KILL + sent, "received": KILL + received}
    evidence.calls.append(call("0-0-0/ask/onlyx1", KILL + 5))
    verdict = evidence.judge()
    assert (verdict.counts["repaid_in_window"], verdict.counts["calls_repaid"]) == (excused, not excused)


def test_one_call_of_the_window_excuses_one(evidence: Evidence) -> None:
    evidence.calls[2]["t"] = KILL - 0.2
    evidence.calls += [call("0-0-0/ask/onlyx1", KILL + 2), call("0-0-0/ask/onlyx1", KILL + 3)]
    verdict = evidence.judge()
    assert (verdict.counts["calls_repaid"], verdict.counts["repaid_in_window"]) == (1, 1)


def test_each_kill_excuses_the_call_that_it_interrupted(evidence: Evidence) -> None:
    evidence.calls[2]["t"] = KILL - 0.2
    evidence.calls += [call("0-0-0/ask/onlyx1", KILL + 2), call("0-0-0/ask/onlyx1", KILL + 4)]
    evidence.diary.append(died("peer-0.2", KILL + 2.1))
    assert evidence.judge().counts["repaid_in_window"] == 2


def test_a_call_asked_again_before_the_kill(evidence: Evidence) -> None:
    evidence.calls[2]["t"] = KILL - 0.2
    evidence.calls.append(call("0-0-0/ask/onlyx1", KILL + 0.1, received=KILL - 0.1))
    assert evidence.judge().counts["calls_repaid"] == 1


def test_a_call_served_again_though_nobody_died(evidence: Evidence) -> None:
    evidence.diary = [{"fault": "feeder", "t": KILL}]
    evidence.calls[2]["t"] = KILL - 0.1
    evidence.calls.append(call("0-0-0/ask/onlyx1", KILL + 2))
    assert evidence.judge().counts["calls_repaid"] == 1


def test_more_servings_than_equal_requests(evidence: Evidence) -> None:
    evidence.calls.append(call("0-0-0/ask/pairx2", KILL + 2))
    assert evidence.judge().counts["calls_repaid"] == 1


def test_what_a_stopped_process_never_saw(evidence: Evidence) -> None:
    evidence.diary = [{"fault": "stop-peer-long", "t": KILL}]
    evidence.diary.append(died("peer-0.1", KILL, before=KILL + 3, suspected=True))
    evidence.calls[2]["t"] = KILL + 1
    evidence.calls.append(call("0-0-0/ask/onlyx1", KILL + 4))
    verdict = evidence.judge()
    assert (verdict.counts["calls_repaid"], verdict.counts["repaid_after_suspicion"]) == (0, 1)
    assert checker.passed(verdict)


def test_more_than_a_stopped_process_can_have_had(evidence: Evidence) -> None:
    evidence.diary = [died("peer-0.1", KILL, before=KILL + 3, suspected=True, most=2)]
    for served in evidence.calls[:3]:
        served["t"] = KILL + 1
    evidence.calls += calls(0, sent=KILL + 4)
    verdict = evidence.judge()
    assert verdict.counts["repaid_after_suspicion"] == 3
    assert not checker.passed(verdict)


def test_calls_that_were_not_served_count_nothing(evidence: Evidence) -> None:
    evidence.calls.append(call("0-0-0/ask/onlyx1", KILL + 2, status=499))
    assert checker.passed(evidence.judge())


def test_a_call_in_a_row_that_was_never_served(evidence: Evidence) -> None:
    del evidence.calls[0]
    verdict = evidence.judge()
    assert verdict.findings == ["calls in rows that were never served: 0-0-0/ask/pairx2"]
    assert not checker.passed(verdict)


def test_a_server_that_died_before_it_wrote_its_log(evidence: Evidence) -> None:
    del evidence.calls[0]
    evidence.diary.append(died("llm", 985.0))
    verdict = evidence.judge()
    assert verdict.counts["calls_unlogged"] == 1
    assert checker.passed(verdict)


def test_a_call_asked_again_with_other_words(evidence: Evidence) -> None:
    evidence.calls[2]["t"] = KILL - 0.1
    evidence.calls.append(call("0-0-0/ask/onlyx1", KILL + 2, key="other"))
    assert evidence.judge().findings == ["paths that were asked again with another request: 0-0-0/ask/onlyx1"]


def test_a_session_that_names_no_path(evidence: Evidence) -> None:
    evidence.calls.append(call("", 990.0))
    assert any("names no path" in finding for finding in evidence.judge().findings)


@pytest.mark.parametrize("where", ["turn", "row"])
def test_usage_that_does_not_add_up(evidence: Evidence, where: str) -> None:
    target = evidence.rows[0] if where == "row" else evidence.rows[0]["turns"][0]
    target["usage"] = {"calls": 4}
    assert not checker.passed(evidence.judge())


def test_a_turn_that_is_in_a_row_twice(evidence: Evidence) -> None:
    evidence.rows[0]["turns"] *= 2
    evidence.rows[0]["usage"] = {"calls": 6}
    assert any("paths in two turns" in finding for finding in evidence.judge().findings)


def test_a_turn_of_another_task(evidence: Evidence) -> None:
    evidence.rows[0]["turns"] = evidence.rows[1]["turns"]
    assert any("another's row" in finding for finding in evidence.judge().findings)


def test_a_torn_log_of_calls_needs_a_death_of_its_server(evidence: Evidence) -> None:
    evidence.judge()
    with (evidence.folder / "calls.jsonl").open("ab") as log:
        log.write(b'{"t": 9')
    files = [evidence.folder / name for name in ("run", "rows.jsonl", "calls.jsonl", "faults.jsonl")]
    assert any("torn" in finding for finding in checker.judge(*files).findings)
    with files[-1].open("ab") as diary:
        diary.write(lines([died("llm", 985.0)]))
    assert checker.passed(checker.judge(*files))


def test_the_last_line_is_the_counts(evidence: Evidence) -> None:
    evidence.rows.append(evidence.rows[0])
    evidence.judge()
    command = [sys.executable, "-I", checker.__file__, str(evidence.folder / "run")]
    for name in ("source", "calls", "faults"):
        file = "rows" if name == "source" else name
        command += [f"--{name}", str(evidence.folder / f"{file}.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert json.loads(done.stdout.splitlines()[-1])["duplicated"] == 1
    assert "ids with more than one line: 0-0-0" in done.stderr


def test_the_checker_imports_nothing_of_ours() -> None:
    tree = ast.parse(Path(checker.__file__).read_text("utf-8"))
    names: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                names |= {alias.name.partition(".")[0] for alias in node.names}
            case ast.ImportFrom():
                names.add("." * node.level + (node.module or "").partition(".")[0])
    assert names <= sys.stdlib_module_names - {"importlib", "runpy"}
    assert "__import__" not in {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
