import json
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.comparison.case import Case, Found, Outcome
from benchmarks.comparison.plot import bars
from benchmarks.comparison.report import Results, number, write
from benchmarks.comparison.rows import Row, at_least, missing


def results() -> Results:
    outcome: Outcome = {
        "peerloom": Found([{"share_of_ideal": 0.9, "peak_megabytes": 700.0}]),
        "loop": Found([{"share_of_ideal": 0.5}]),
        "slow | peer": Found(reason="not installed"),
    }
    rows = [
        Row("share", 0.9, "loop", 0.5, at_least(0.97), (0.8, 0.95), "a | b"),
        missing("bytes", at_least(1), "no second node"),
    ]
    case = Case("mini-coral, 100 in flight", [], lambda found: rows, shown=True)
    return Results({"cores": "2"}, {"aiohttp": "aiohttp 1"}, rows, [(case, outcome)])


def test_results_are_a_document_with_the_same_as_json_and_plots(tmp_path: Path) -> None:
    write(results(), tmp_path / "kept" / "RESULTS.md", "python -m benchmarks all")
    text = (tmp_path / "kept/RESULTS.md").read_text()
    assert "| share | 0.9 (0.8 to 0.95) | loop | 0.5 | 1.8x | >= 0.97 | **no** | a / b |" in text
    assert "not measured: no second node" in text
    assert "| slow / peer |  |  | not measured: not installed |" in text
    assert "- cores: 2" in text
    assert "(RESULTS-share-of-ideal.svg)" in text
    found = json.loads((tmp_path / "kept/RESULTS.json").read_text())
    assert found["rows"][0]["holds"] is False
    assert found["cases"]["mini-coral, 100 in flight"]["peerloom"]["runs"][0]["peak_megabytes"] == 700.0
    ElementTree.parse(tmp_path / "kept/RESULTS-share-of-ideal.svg")


def test_each_table_has_as_many_cells_in_every_line(tmp_path: Path) -> None:
    write(results(), tmp_path / "RESULTS.md", "python -m benchmarks all")
    widths: list[int] = []
    for line in (tmp_path / "RESULTS.md").read_text().splitlines():
        if line.startswith("|"):
            widths.append(line.count("|"))
            assert widths[-1] == widths[0]
        else:
            widths.clear()


def test_bars_leave_gaps_where_nothing_was_measured() -> None:
    svg = bars("a < b", ["100", "1,000"], {"ours": [1.0, 2.0], "theirs": [0.5, None]})
    tree = ElementTree.fromstring(svg)
    told = [node.text for node in tree.iter("{http://www.w3.org/2000/svg}title")]
    assert told == ["ours: 1", "theirs: 0.5", "ours: 2"]


def test_numbers_are_short() -> None:
    assert [number(value) for value in (None, 0.012345, 12.345, 1234.5)] == ["", "0.0123", "12.3", "1,234"]
