"""Dividing what there is among those who want it, so that who wants little is not kept waiting."""

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

Key = TypeVar("Key")


def max_min(available: float, wanted: Mapping[Key, float]) -> dict[Key, float]:
    """Max-min fair shares: whoever wants less than an equal share gets that, the others share the rest."""
    shares: dict[Key, float] = {}
    left = available
    for number, (key, want) in enumerate(sorted(wanted.items(), key=lambda item: item[1])):
        shares[key] = min(want, left / (len(wanted) - number))
        left -= shares[key]
    return shares


def by_role(available: float, wanted: Mapping[tuple[str, str], float]) -> dict[str, float]:
    """Shares of members, whose wants are by `(role, member)`: fair between roles, then within each."""
    roles: dict[str, dict[str, float]] = {}
    for (role, member), want in wanted.items():
        roles.setdefault(role, {})[member] = want
    shares: dict[str, float] = {}
    for role, share in max_min(available, {role: sum(each.values()) for role, each in roles.items()}).items():
        for member, part in max_min(share, roles[role]).items():
            shares[member] = shares.get(member, 0.0) + part
    return shares


def whole(shares: Mapping[str, float], total: int) -> dict[str, int]:
    """Shares as whole numbers that add up to no more than `total`; the largest remainders are rounded up."""
    numbers = {member: math.floor(share) for member, share in shares.items()}
    over = min(total, round(sum(shares.values()))) - sum(numbers.values())
    remainders: Sequence[str] = sorted(shares, key=lambda member: numbers[member] - shares[member])
    for member in remainders[: max(0, over)]:
        numbers[member] += 1
    return numbers
