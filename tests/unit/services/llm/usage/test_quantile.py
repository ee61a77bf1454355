import random

import pytest

from peerloom.services.llm.usage.estimates import RESERVED, OutputLength


def lengths(*tokens: int) -> OutputLength:
    output = OutputLength()
    for each in tokens:
        output.add(each)
    return output


def test_while_little_is_known_the_limit_is_reserved() -> None:
    assert lengths().reserve(300, 512) == 300.0
    assert lengths(*[10] * 19).reserve(300, 512) == 300.0
    assert lengths(*[10] * 20).reserve(300, 512) == 10.0


def test_without_a_limit_the_default_stands_for_it_or_the_longest_reply() -> None:
    assert lengths().reserve(None, 512) == 512.0
    assert lengths(10, 900).reserve(None, 512) == 900.0
    assert lengths(*[900] * 20).reserve(None, 512) == 900.0


def test_never_more_than_the_limit() -> None:
    assert lengths(*[900] * 40).reserve(300, 512) == 300.0


@pytest.mark.parametrize("count", [20, 32, 48, 512])
def test_so_many_replies_are_covered_and_no_more_than_need_be(count: int) -> None:
    tokens = list(range(1, count + 1))
    random.Random(count).shuffle(tokens)
    reserved = lengths(*tokens).reserve(None, 512)
    assert sum(each <= reserved for each in tokens) >= RESERVED * count
    assert sum(each <= reserved - 1 for each in tokens) < RESERVED * count


def test_replies_that_get_longer_are_followed() -> None:
    output = lengths(*[10] * 512)
    for _ in range(64):
        output.add(400)
    assert output.reserve(None, 512) == 400.0
    for _ in range(512):
        output.add(10)
    assert output.reserve(None, 512) == 10.0
