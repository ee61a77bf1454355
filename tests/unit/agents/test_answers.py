import pickle

import pytest

from peerloom.agents.answers import Choice, FreeText, Json, Parsed, whole_sentences
from peerloom.errors import ConfigError

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name"],
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("B", "B"),
        ("b.", "B"),
        ("(B)", "B"),
        ("**B**", "B"),
        ("The answer is (B).", "B"),
        ("I think that B is right", "B"),
        ("A mammal feeds its young, so it is D) a dog", "D"),
        ("Answer: A", "A"),
        ("The correct option is A because it floats", "A"),
        ("I am sure it is C", "C"),
        ("I", "I"),
    ],
)
def test_a_letter_is_read(text: str, value: str):
    assert Choice("ABCDEFGHIJ").read(text) == value


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("B or C", "it names B and C"),
        ("I do not know", "it names none of the choices"),
        ("A dog has four legs", "it names none of the choices"),
        ("", "it names none of the choices"),
        ("Bob", "it names none of the choices"),
    ],
)
def test_no_letter_or_several_are_no_answer(text: str, problem: str):
    with pytest.raises(ValueError, match=f"{problem}: reply with exactly one of A, B, C, I"):
        Choice("ABCI").read(text)


def test_words_are_choices_too():
    verdict = Choice(["agree", "disagree", "not sure"])
    assert verdict.read("I Disagree!") == "disagree"
    assert verdict.read("Not sure.") == "not sure"
    with pytest.raises(ValueError, match="agree and disagree"):
        verdict.read("Whether to agree or to disagree?")


def test_choices_that_differ_only_in_case_need_their_own():
    assert Choice(["a", "A"]).read("A") == "A"
    with pytest.raises(ValueError, match="a and A"):
        Choice(["a", "A"]).read("A.")


@pytest.mark.parametrize("text", ['{"name": "Ada", "age": 36}', '```json\n{"name": "Ada", "age": 36}\n```'])
def test_json_is_read_and_a_fence_forgiven(text: str):
    assert Json(PERSON).read(text) == {"name": "Ada", "age": 36}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Ada, 36", "it is not JSON .*: reply with the JSON value alone"),
        ('{"age": 36}', r"at \$: 'name' is a required property"),
        ('{"name": "Ada", "age": "36"}', r"at \$\.age: '36' is not of type 'integer'"),
        ("", "it is not JSON"),
    ],
)
def test_json_that_breaks_its_schema_says_where(text: str, problem: str):
    with pytest.raises(ValueError, match=problem):
        Json(PERSON).read(text)


def test_a_schema_that_is_none_is_refused_when_made():
    with pytest.raises(ConfigError, match=r"schema: at \$\.properties\.n\.type: 'integr' is not valid"):
        Json({"properties": {"n": {"type": "integr"}}})


def test_a_schema_travels_without_its_validator():
    answer = Json(PERSON)
    answer.read('{"name": "Ada"}')
    arrived = pickle.loads(pickle.dumps(answer))
    assert arrived.schema == PERSON
    assert arrived.read('{"name": "Ada"}') == {"name": "Ada"}


def test_a_parser_has_the_last_word():
    assert Parsed(int).read("42") == 42
    with pytest.raises(ValueError, match="invalid literal"):
        Parsed(int).read("many")


def test_free_text_is_anything_but_nothing():
    assert FreeText().read("words") is None
    with pytest.raises(ValueError, match="it is empty"):
        FreeText().read("")


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("Ice floats. It is less dense. Bec", "Ice floats. It is less dense."),
        ("It is 42. Then", "It is 42."),
        ("It is 3.14 and th", "It is 3.14 and"),
        ('He said "yes." And th', 'He said "yes."'),
        ("(It floats.) And", "(It floats.)"),
        ("What? No! Bu", "What? No!"),
        ("Two things.\n1. the fi", "Two things."),
        ("是的。因为", "是的。"),
        ("no end at al", "no end at"),
        ("word", "word"),
        ("", ""),
    ],
)
def test_a_cut_text_keeps_its_whole_sentences(text: str, whole: str):
    assert whole_sentences(text) == whole
