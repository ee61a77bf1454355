import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.comparison import main as module
from benchmarks.comparison.case import Case, Figures, Outcome, Side
from benchmarks.comparison.main import measure_all
from benchmarks.comparison.rows import Row, at_least
from benchmarks.comparison.sides import Scope, compared
from peerloom.errors import ConfigError


@pytest.fixture(autouse=True)
def quick_cases(monkeypatch: pytest.MonkeyPatch) -> list[Scope]:
    """Two cases that take no time; the scopes they were asked with."""
    scopes: list[Scope] = []

    async def rate() -> Figures:
        return {"rate": 5.0}

    def rows(outcome: Outcome) -> list[Row]:
        return [compared("rate", outcome, "rate", reach=at_least(4))]

    def cases(scope: Scope) -> list[Case]:
        scopes.append(scope)
        return [Case(name, [Side("peerloom", rate)], rows, scope.times(3)) for name in ("first", "second")]

    monkeypatch.setattr(module, "GROUPS", (SimpleNamespace(cases=cases),))
    return scopes


def test_json_is_one_object_a_row_and_nothing_else(capfd: pytest.CaptureFixture[str]) -> None:
    measure_all(json=True)
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [line["value"] for line in lines] == [5.0, 5.0]
    assert all({"figure", "peer", "peer_value", "ratio", "reach", "holds"} < line.keys() for line in lines)


def test_people_get_a_table(capfd: pytest.CaptureFixture[str]) -> None:
    measure_all(only="second", runs=1)
    captured = capfd.readouterr()
    assert "rate" in captured.out
    assert "second: peerloom, run 1 of 1" in captured.err
    assert "first" not in captured.err


def test_results_are_written(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    measure_all(quick=True, results=tmp_path / "RESULTS.md", json=True)
    assert "Made by `python -m benchmarks all --quick`" in (tmp_path / "RESULTS.md").read_text()
    assert len(json.loads((tmp_path / "RESULTS.json").read_text())["rows"]) == 2


def test_a_run_that_was_cut_short_goes_on_with_what_is_missing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "RESULTS.md"
    measure_all(only="second", runs=2, results=path, keep=True)
    first = capfd.readouterr()
    assert "second: peerloom, run 2 of 2" in first.err
    assert "--only 'second' --runs 2 --keep`" in path.read_text()
    assert "kept from earlier runs" in path.read_text()
    measure_all(runs=1, results=path, keep=True, json=True)
    then = capfd.readouterr()
    assert "first: peerloom, run 1 of 1" in then.err
    assert "second" not in then.err
    assert len(then.out.splitlines()) == 2
    cases = json.loads(path.with_suffix(".json").read_text())["cases"]
    assert [len(cases[name]["peerloom"]["runs"]) for name in ("first", "second")] == [1, 2]
    measure_all(only="second", runs=3, results=path, keep=True)
    cases = json.loads(path.with_suffix(".json").read_text())["cases"]
    assert [len(cases[name]["peerloom"]["runs"]) for name in ("first", "second")] == [1, 3]


def test_a_case_of_which_a_side_has_failed_is_measured_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "RESULTS.md"
    measure_all(results=path)
    kept = json.loads(path.with_suffix(".json").read_text())
    kept["cases"]["second"]["peerloom"] = {"runs": [], "reason": "it did not start"}
    path.with_suffix(".json").write_text(json.dumps(kept))
    capfd.readouterr()
    measure_all(results=path, keep=True)
    told = capfd.readouterr().err
    assert "second: peerloom, run 1 of 3" in told
    assert "first" not in told


def test_results_of_a_case_that_this_run_does_not_have_are_not_lost(tmp_path: Path) -> None:
    before = b'{"cases": {"first of old": {}}}'
    (tmp_path / "RESULTS.json").write_bytes(before)
    with pytest.raises(ConfigError, match="would lose it: first of old"):
        measure_all(results=tmp_path / "RESULTS.md", keep=True)
    assert (tmp_path / "RESULTS.json").read_bytes() == before


@pytest.mark.parametrize("data", ["{", '{"cases": {"first": 3}}'])
def test_results_that_cannot_be_kept_are_told(tmp_path: Path, data: str) -> None:
    (tmp_path / "RESULTS.json").write_text(data)
    with pytest.raises(ConfigError, match=r"RESULTS\.json cannot be read again"):
        measure_all(results=tmp_path / "RESULTS.md", keep=True)
    with pytest.raises(ConfigError, match="--keep wants --results"):
        measure_all(keep=True)


def test_a_short_run_measures_once_and_only_some_peers(quick_cases: list[Scope]) -> None:
    measure_all(quick=True, json=True)
    measure_all(peers=["aiohttp"], json=True)
    short, asked = quick_cases
    assert short.times(3) == 1
    assert short.wants("matrix")
    assert not short.wants("autogen")
    assert asked.times(3) == 3
    assert asked.wants("aiohttp")
    assert not asked.wants("matrix")


def test_a_case_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="no case has 'third' in its name; there are first; second"):
        measure_all(only="third")
