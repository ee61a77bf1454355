"""Traffic: what is said is as hard to compress as real text, and what is switched off is what there is."""

from dataclasses import asdict
from pathlib import Path

import pytest
import zstandard

from benchmarks.comparison.case import Found
from benchmarks.comparison.cases.traffic import LARGE, PLAIN, TALKS, VALUE, VALUED, WITHOUT, cases
from benchmarks.comparison.sides import US, Scope
from benchmarks.harness.hosts import TwoHosts
from benchmarks.workloads.texts import VARIABLE, given, text
from peerloom.runtime.settings import RunSettings


def ratio(texts: list[str]) -> float:
    """How often all of them are compressed in one stream."""
    stream, packed = zstandard.ZstdCompressor(3).compressobj(), 0
    for each in texts:
        packed += len(stream.compress(each.encode()))
        packed += len(stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK))
    return sum(map(len, texts)) / packed


def test_texts_are_compressed_as_real_ones_are() -> None:
    assert 2.5 < ratio([text(20_000, state) for state in range(50)]) < 3.7
    assert 2.5 < ratio([text(1_000, state) for state in range(500)]) < 3.7


def test_a_text_is_the_same_for_the_same_state_only() -> None:
    texts = {text(size, state) for size in (1, 999, 20_000) for state in range(3)}
    assert sorted(map(len, texts)) == [1] * (len(texts) - 6) + [999] * 3 + [20_000] * 3
    assert text(999, 2) in texts


@pytest.mark.parametrize("name", ["said.jsonl", "said.txt"])
def test_words_may_come_from_a_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = '{"id": "short", "number": 7, "said": "alpha beta gamma delta"}\n'
    (tmp_path / name).write_text(rows if name.endswith("l") else "alpha beta gamma delta")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(VARIABLE, raising=False)
    assert given() == ""
    monkeypatch.setenv(VARIABLE, name)
    assert given() == str(tmp_path / name)
    assert set(text(500, 1, given()).split()[:-1]) == {"alpha", "beta", "gamma", "delta"}


def test_offloading_and_compression_are_on_unless_switched_off() -> None:
    settings, usual = asdict(RunSettings(**WITHOUT)), asdict(RunSettings())
    assert {name for name, value in settings.items() if value != usual[name]} == set(WITHOUT)


def test_a_value_is_another_in_each_row_and_as_large_as_it_says() -> None:
    values = [row["value"] for row in VALUED.rows(3)]
    assert len(set(values)) == 3
    packed = len(zstandard.ZstdCompressor(3).compress(values[0].encode()))
    assert VALUE <= packed <= 1.02 * VALUE


def test_rows_compare_with_and_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TwoHosts, "missing", classmethod(lambda cls: "no namespaces here"))

    talks = [talk.name for talk in TALKS]

    def found(crossed: float, rate: float) -> Found:
        sizes = {f"bytes_per_task, {name}": crossed * 10**place for place, name in enumerate(talks)}
        rates = {f"tasks_per_second, {name}": rate * 10**place for place, name in enumerate(talks)}
        return Found([{**sizes, **rates, "crossings": crossed / 10}])

    outcome = {US: found(10, 5), PLAIN: found(40, 6)}
    rows = [row for case in cases(Scope()) for row in case.rows(outcome)]
    assert [row.value for row in rows] == [10, 5, 100, 50, 1]
    assert [row.peer_value for row in rows] == [40, 6, 400, 60, 4]
    assert [row.holds for row in rows] == [True, None, True, None, True]
    assert rows[-1].figure == LARGE
    gaps = [row for case in cases(Scope()) for row in case.rows({US: Found(reason="no")})]
    assert all(row.value is None and "no" in row.note for row in gaps)
    assert all(side.measure is None for case in cases(Scope()) for side in case.sides)
