import pytest

from peerloom.services.llm.usage.tokens import cut_tokens, estimate_tokens


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("", 0, 0),
        ("a", 1, 1),
        ("The quick brown fox jumps over the lazy dog. " * 10, 90, 130),  # English: 4 characters a token
        ("Быстрая лиса прыгает через ленивую собаку. " * 10, 180, 300),  # other alphabets: about 2
        ("敏捷的棕色狐狸跳过懒狗" * 10, 100, 160),  # about 1
        ("日本語のテキスト" * 10, 70, 120),
    ],
)
def test_about_as_many_as_a_tokenizer_makes(text: str, least: int, most: int) -> None:
    assert least <= estimate_tokens(text) <= most


def test_more_text_is_never_fewer_tokens() -> None:
    text = "plain words, затем другие, 再来一些 " * 5
    counts = [estimate_tokens(text[:end]) for end in range(len(text))]
    assert counts == sorted(counts)


def test_a_lone_surrogate_counts_too() -> None:
    assert estimate_tokens("\ud800abc") >= 1


def test_a_text_that_fits_stays_whole() -> None:
    assert cut_tokens("a few words", 100) == "a few words"


@pytest.mark.parametrize("text", ["word " * 400, "слово " * 400, "字" * 400, "x" * 4_000, "字 word " * 300])
@pytest.mark.parametrize("tokens", [0, 1, 7, 100])
def test_what_is_cut_fits_and_is_the_beginning(text: str, tokens: int) -> None:
    cut = cut_tokens(text, tokens)
    assert text.startswith(cut)
    assert estimate_tokens(cut) <= tokens
    if tokens == 100:
        assert estimate_tokens(cut) >= 90


def test_it_is_cut_between_words() -> None:
    cut = cut_tokens("alpha beta gamma delta " * 20, 20)
    assert cut.split()[-1] in ("alpha", "beta", "gamma", "delta")
