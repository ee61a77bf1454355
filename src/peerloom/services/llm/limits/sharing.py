"""Divide an amount fairly among members, so that small demands are met first."""

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

Key = TypeVar("Key")


def max_min(available: float, wanted: Mapping[Key, float]) -> dict[Key, float]:
    """Return max-min fair shares: demands below an equal share are met, and the others divide the rest."""
    shares: dict[Key, float] = {}
    left = available
    for number, (key, want) in enumerate(sorted(wanted.items(), key=lambda item: item[1])):
        shares[key] = min(want, left / (len(wanted) - number))
        left -= shares[key]
    return shares


def by_role(available: float, wanted: Mapping[tuple[str, str], float]) -> dict[str, float]:
    """Return the shares of members, from demands by `(role, member)`: fair between and within roles."""
    roles: dict[str, dict[str, float]] = {}
    for (role, member), want in wanted.items():
        roles.setdefault(role, {})[member] = want
    shares: dict[str, float] = {}
    for role, share in max_min(available, {role: sum(each.values()) for role, each in roles.items()}).items():
        for member, part in max_min(share, roles[role]).items():
            shares[member] = shares.get(member, 0.0) + part
    return shares


def rounded(shares: Mapping[str, float], total: int) -> dict[str, int]:
    """Return shares as integers of sum `total` or less; the largest remainders are rounded up."""
    numbers = {member: math.floor(share) for member, share in shares.items()}
    over = min(total, round(sum(shares.values()))) - sum(numbers.values())
    remainders: Sequence[str] = sorted(shares, key=lambda member: numbers[member] - shares[member])
    for member in remainders[: max(0, over)]:
        numbers[member] += 1
    return numbers
