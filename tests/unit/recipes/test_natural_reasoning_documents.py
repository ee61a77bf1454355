"""What is read, refused and cut before a model sees it; through whole runs."""

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from curating import MARKS, TEXT, Curated, asked, solved, words

import peerloom
from peerloom import recipes
from peerloom.errors import ConfigError, ContextExceeded

RECIPE = recipes.find("natural_reasoning")
REAL_ROWS = Path(__file__).parents[4] / "shared" / "data" / "web_docs_300.jsonl"


GERMAN = (
    "Honigbienen halten keinen Winterschlaf. Wenn es kalt wird, rücken sie im Stock zu einer dichten Kugel "
    "zusammen, in deren Mitte die Königin sitzt, und lassen ihre Flugmuskeln zittern, sodass Wärme entsteht."
)


@pytest.mark.parametrize(
    ("text", "reason", "language"),
    [
        (GERMAN, "language", "de"),
        (GERMAN * 100, "language", "de"),
        ("1 2 3 4 5 6 7 8 9 0 " * 20, "language", None),
        ("Closed on Friday.", "short", None),
        (" \n ", "empty", None),
        ("", "empty", None),
    ],
)
def test_what_needs_no_model_asks_none(
    curate: Callable[..., Curated], text: str, reason: str, language: str | None
) -> None:
    curated = curate(rows=[{"text": text}])
    assert curated.end == ("filtered", reason)
    assert curated.value("filter") == {"language": language}
    assert curated.requests == []


def test_the_languages_are_an_option(curate: Callable[..., Curated]) -> None:
    german = curate("no", rows=[{"text": GERMAN}], languages=["de", "en"])
    assert german.value("filter") == {"language": "de", "reasoning": "no"}
    every = curate("no", rows=[{"text": GERMAN}], languages=[])
    assert every.value("filter") == {"language": None, "reasoning": "no"}


LONG = " ".join(f"Sentence number {n} says that it follows number {n - 1}." for n in range(1, 101))


def test_a_long_document_is_cut_and_the_cut_recorded(curate: Callable[..., Curated]) -> None:
    curated = curate("yes", MARKS, asked(), solved(), rows=[{"text": LONG}], max_tokens=200)
    size = len(LONG) // 4 + 1
    assert curated.rows[0]["result"]["document"]["cut"] == {"tokens": 200, "of": size}
    assert curated.value("filter")["cut"] == {"tokens": 200, "of": size}
    shown = words(curated.requests[0]).rpartition("<document>\n")[2].partition("\n</document>")[0]
    assert 760 < len(shown) <= 800
    assert LONG.startswith(shown + " ")


def test_beyond_the_context_it_is_cut_harder_and_stays_so(curate: Callable[..., Curated]) -> None:
    over = ContextExceeded("too long")
    curated = curate(over, over, "yes", MARKS, over, asked(), solved(), rows=[{"text": LONG}], max_tokens=400)
    cuts = [curated.value(role)["cut"]["tokens"] for role in ("filter", "score", "question")]
    assert cuts == [100, 100, 50]
    assert curated.rows[0]["result"]["document"]["cut"]["tokens"] == 50
    lengths = [len(words(request)) for request in curated.requests]
    assert lengths[0] - lengths[1] in range(790, 810)
    assert lengths[1] - lengths[2] in range(390, 410)


def test_a_document_that_was_whole_is_halved_too(curate: Callable[..., Curated]) -> None:
    curated = curate(ContextExceeded("too long"), "no")
    size = len(TEXT) // 4 + 1
    assert curated.value("filter")["cut"] == {"tokens": size // 2, "of": size}


def test_after_so_many_cuts_it_is_truncated(curate: Callable[..., Curated]) -> None:
    curated = curate(*[ContextExceeded("too long")] * 3, max_cuts=2)
    assert curated.end == ("truncated", "context_exceeded")
    assert len(curated.requests) == 3


HTML = f"""<!DOCTYPE html><html lang="en"><head><title>Pipes</title></head><body>
<nav><a href="/">Home</a> <a href="/basket">Basket</a></nav>
<main><article><h1>Pipes</h1><p>{TEXT}</p><p>{TEXT.replace("tank", "pool")}</p></article></main>
<footer>All rights reserved, cookie settings</footer></body></html>"""


@pytest.mark.parametrize("name", ["html", "content", "text"])
def test_html_is_read_for_its_main_text(curate: Callable[..., Curated], name: str) -> None:
    curated = curate("yes", MARKS, asked(), solved(), rows=[{name: HTML}])
    assert curated.rows[0]["result"]["document"]["title"] == "Pipes"
    assert curated.rows[0]["result"]["verbatim"]
    for request in curated.requests[:3]:
        assert TEXT in words(request)
        assert "Basket" not in words(request)
        assert "<p>" not in words(request)


def test_html_without_a_text_is_empty(curate: Callable[..., Curated]) -> None:
    assert curate(rows=[{"html": "<html><body></body></html>"}]).end == ("filtered", "empty")


def test_warc_rows_are_read_as_they_are(curate: Callable[..., Curated]) -> None:
    headers = {"WARC-Record-ID": "<urn:uuid:7>", "warc_target_uri": "https://example.org/7", "length": 3}
    for group in ("warc_headers", "warc headers", "metadata"):
        curated = curate("yes", MARKS, asked(), solved(), rows=[{"raw_content": TEXT, group: headers}])
        document = curated.rows[0]["result"]["document"]
        assert (document["id"], document["url"]) == ("<urn:uuid:7>", "https://example.org/7")


def test_the_field_is_an_option(curate: Callable[..., Curated]) -> None:
    curated = curate("yes", MARKS, asked(), solved(), rows=[{"text": "no", "body": TEXT}], field="body")
    assert curated.end == ("completed", "")


@pytest.mark.parametrize(
    ("row", "detail"),
    [
        ({"title": "T"}, "there is no field 'text' or 'raw_content' or 'content' or 'html'"),
        ({"text": None}, "there is no field 'text' or"),
        ({"text": ["a"]}, "'text' is list, not text"),
    ],
)
def test_a_row_without_a_document_fails(
    curate: Callable[..., Curated], row: dict[str, Any], detail: str
) -> None:
    curated = curate(rows=[row])
    assert curated.end == ("failed", "bad_row")
    assert detail in curated.rows[0]["detail"]
    assert curated.requests == []


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, curate: Callable[..., Curated]) -> None:
    monkeypatch.setitem(sys.modules, "lingua", None)
    monkeypatch.setitem(sys.modules, "trafilatura", None)
    with pytest.raises(ConfigError, match=r"pip install 'peerloom\[documents\]'"):
        RECIPE.build({})
    RECIPE.build({"languages": []})
    curated = curate(rows=[{"html": HTML}], languages=[])
    assert "pip install 'peerloom[documents]'" in curated.rows[0]["detail"]


def sample() -> list[dict[str, Any]]:
    assert RECIPE.sample is not None
    return [orjson.loads(line) for line in RECIPE.sample.read_bytes().splitlines()]


def test_the_bundled_documents_are_varied(curate: Callable[..., Curated]) -> None:
    curated = curate(*["no"] * 5, rows=sample())
    reasons = Counter(row["reason"] for row in curated.rows)
    assert reasons == {"no_reasoning": 5, "language": 1, "short": 1}
    assert sum("html" in row for row in sample()) == 1


@pytest.mark.slow
@pytest.mark.skipif(not REAL_ROWS.exists(), reason="the shared data is not here")
def test_real_web_documents_all_come_to_an_end(tmp_path: Path) -> None:
    result = peerloom.run(
        "natural_reasoning", source=REAL_ROWS, llm="simulated", engine="local", seed=1, in_flight=32,
        run_dir=tmp_path / "run", progress=False,
        config={"recipe.min_score": 2, "llm.context": 900, "llm.rate_truncation": 0.05},
    )  # fmt: skip
    outcomes = result.summary["outcomes"]
    assert sum(outcomes.values()) == 300
    rows = list(result.rows(rejected=True))
    assert len({row["id"] for row in rows}) == 300
    reasons = Counter(row["reason"] for row in rows)
    assert reasons["language"] > 200
    assert set(reasons) <= {
        "", "language", "short", "empty", "no_reasoning", "score", "no_question", "not_self_contained",
        "copied", "no_answer", "answer", "max_tokens",
    }  # fmt: skip
    made = [row["result"] for row in rows if row["outcome"] == "completed"]
    assert made
    assert all(row["document"]["language"] == "en" and row["question"] and row["answer"] for row in made)
    assert any(row["document"]["cut"] for row in made)
