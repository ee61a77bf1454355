"""The name a user most likely meant."""

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The most similar of the `known` names; of dotted keys, one whose last part is similar will do."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    if not close:
        leaves = {key.rpartition(".")[2]: key for key in reversed(names)}
        close = [leaves[leaf] for leaf in difflib.get_close_matches(name.rpartition(".")[2], leaves, n=1)]
    return close[0] if close else None


def did_you_mean(name: str, known: Iterable[str], *, all_of: Iterable[str] = ()) -> str:
    """` Did you mean 'x'?` if a name is near, and ` There are: ...` if `all_of` is not empty."""
    near, names = nearest(name, known), list(all_of)
    question = f" Did you mean {near!r}?" if near else ""
    return f"{question} There are: {', '.join(names)}." if names else question
