from peerloom.lookup.nearest import did_you_mean, nearest


def test_the_nearest_name() -> None:
    assert nearest("lmit", ["limit", "seed"]) == "limit"
    assert nearest("model", ["source.path", "llm.model"]) == "llm.model"
    assert nearest("zzz", ["limit", "seed"]) is None


def test_the_words_around_it() -> None:
    assert did_you_mean("lmit", ["limit"]) == " Did you mean 'limit'?"
    assert did_you_mean("zzz", ["a", "b"], all_of=["a", "b"]) == " There are: a, b."
    assert did_you_mean("zzz", ["a"]) == ""
