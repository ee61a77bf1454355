"""Find the name that a user most likely meant."""

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the most similar of the `known` names, or None if none is similar.

    For dotted keys, a key in the same section is preferred, then a similar dotted key, then a key with a
    similar last part in another section.
    """
    names = list(known)
    section, _, leaf = name.rpartition(".")
    inside = {key.rpartition(".")[2]: key for key in names if key.rpartition(".")[0] == section}
    anywhere = {key.rpartition(".")[2]: key for key in reversed(names)}
    for word, among, cutoff in (
        (leaf, inside, 0.6),
        (name, {key: key for key in names}, 0.75),
        (leaf, anywhere, 0.6),
    ):
        close = difflib.get_close_matches(word, among, n=1, cutoff=cutoff)
        if close:
            return among[close[0]]
    return None


def did_you_mean(name: str, known: Iterable[str], *, all_of: Iterable[str] = ()) -> str:
    """Return ` Did you mean 'x'?` if a name is similar, and ` There are: ...` if `all_of` is not empty."""
    near, names = nearest(name, known), list(all_of)
    question = f" Did you mean {near!r}?" if near else ""
    return f"{question} There are: {', '.join(names)}." if names else question
