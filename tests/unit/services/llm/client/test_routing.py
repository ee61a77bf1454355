"""The router alone: where calls go while replicas come, go, fail and come back."""

import math
from collections import Counter
from random import Random

import pytest

from peerloom.errors import ConfigError
from peerloom.services.llm.client.routing import Affinity, ReplicaRouter, Routing

KEYS = [f"{task}-0" for task in range(400)]
SEEDS = range(12)


def urls(count: int) -> list[str]:
    return [f"http://10.0.0.{number}:8000/v1" for number in range(count)]


def placed(router: ReplicaRouter, keys: list[str] = KEYS) -> dict[str, str]:
    """Where each conversation is at home, when nothing is under way."""
    return {key: str(router.pick(key)) for key in keys}


@pytest.mark.parametrize("count", [2, 3, 8])
def test_when_a_replica_leaves_only_its_conversations_move(count: int) -> None:
    names = urls(count)
    router = ReplicaRouter(Routing(), names)
    before = placed(router)
    gone = names[count // 2]
    router.update([name for name in names if name != gone])
    after = placed(router)
    assert {key for key in KEYS if before[key] != after[key]} == {key for key in KEYS if before[key] == gone}
    router.update([*names, "http://10.0.0.99:8000/v1"])
    grown = placed(router)
    assert {grown[key] for key in KEYS if grown[key] != before[key]} == {"http://10.0.0.99:8000/v1"}
    spread = Counter(before.values())
    assert len(spread) == count
    assert all(0.6 < spread[name] * count / len(KEYS) < 1.5 for name in names)


def test_all_clients_agree_whatever_the_order_they_know_the_replicas_in() -> None:
    assert placed(ReplicaRouter(Routing(), urls(5))) == placed(ReplicaRouter(Routing(), urls(5)[::-1]))


@pytest.mark.parametrize("seed", SEEDS)
def test_no_replica_has_more_than_its_share_of_the_calls_under_way(seed: int) -> None:
    rng = Random(seed)
    names = urls(rng.randint(2, 9))
    imbalance = rng.choice([1.0, 1.25, 2.0])
    router = ReplicaRouter(Routing(imbalance=imbalance), names)
    under_way: list[str] = []
    for _ in range(600):
        if under_way and rng.random() < 0.4:
            router.ended(under_way.pop(rng.randrange(len(under_way))))
            continue
        before = Counter(under_way)
        name = str(router.pick(rng.choice(["a", "b", *KEYS[:20]])))
        router.began(name)
        under_way.append(name)
        assert before[name] < imbalance * len(under_way) / len(names)


def test_a_conversation_returns_home_when_there_is_room_again() -> None:
    router = ReplicaRouter(Routing(), urls(3))
    home = str(router.pick("busy"))
    for _ in range(4):
        router.began(home)
    assert router.pick("busy") != home
    for _ in range(4):
        router.ended(home)
    assert router.pick("busy") == home


def test_without_a_key_calls_go_where_fewest_are_under_way_and_equals_take_turns() -> None:
    names = urls(3)
    router = ReplicaRouter(Routing(), names)
    counts = Counter[str]()
    for _ in range(9):
        name = str(router.pick(""))
        router.began(name)
        counts[name] += 1
    assert set(counts.values()) == {3}
    router.ended(names[1])
    assert router.pick("") == names[1]


def test_a_replica_that_failed_a_call_is_avoided_unless_there_is_no_other() -> None:
    names = urls(2)
    router = ReplicaRouter(Routing(), names)
    assert {router.pick(key, {names[0]}) for key in KEYS} == {names[1]}
    assert {router.pick(key, set(names)) for key in KEYS} == set(names)
    assert ReplicaRouter(Routing(), names[:1]).pick("x", names) == names[0]
    assert ReplicaRouter(Routing(), []).pick("x") is None


@pytest.mark.parametrize(
    ("affinity", "key"),
    [("conversation", "7-0"), ("role", "teacher"), ("turn", "7-0/teacher"), ("none", "")],
)
def test_what_is_kept_together(affinity: Affinity, key: str) -> None:
    assert Routing(affinity=affinity).key("7-0", "teacher") == key


@pytest.mark.parametrize("affinity", ["conversation", "turn", "none"])
def test_a_call_without_a_conversation_has_no_home(affinity: Affinity) -> None:
    assert Routing(affinity=affinity).key("", "teacher") == ""


def test_failures_in_a_row_eject_and_an_answer_between_them_does_not() -> None:
    one, two = urls(2)
    router = ReplicaRouter(Routing(eject_after=3), [one, two])
    for _ in range(5):
        assert not router.failed(one, 0.0)
        assert not router.failed(one, 0.0)
        router.succeeded(one)
    router.failed(one, 0.0)
    router.failed(one, 0.0)
    assert router.all_live
    assert router.failed(one, 0.0)
    assert not router.all_live and router.live
    assert {router.pick(key) for key in KEYS} == {two}


def test_one_that_cannot_be_reached_is_ejected_at_once() -> None:
    one, two = urls(2)
    router = ReplicaRouter(Routing(), [one, two])
    assert router.failed(one, 0.0, reached=False)
    assert {router.pick("") for _ in range(4)} == {two}
    router.failed(two, 0.0, reached=False)
    assert not router.live and router.pick("x") is None


def test_each_ejection_is_twice_as_long_up_to_a_cap() -> None:
    (one,) = urls(1)
    router = ReplicaRouter(Routing(eject_seconds=0.5, eject_cap=3.0), [one])
    now, waits = 100.0, list[float]()
    router.failed(one, now, reached=False)
    for _ in range(5):
        waits.append(router.until_due(now))
        now += waits[-1]
        assert router.due(now - 0.01) is None and router.due(now) == one
        router.probe_began(one)
        router.probe_ended(one, now, healthy=False)
    assert waits == [0.5, 1.0, 2.0, 3.0, 3.0]


@pytest.mark.parametrize("eject_after", [1, 5])
def test_one_that_only_looks_healthy_is_ejected_by_its_first_failure_for_longer(eject_after: int) -> None:
    (one,) = urls(1)
    router = ReplicaRouter(Routing(eject_after=eject_after), [one])
    router.failed(one, 0.0, reached=False)
    router.probe_began(one)
    router.probe_ended(one, 1.0, healthy=True)
    assert router.live
    assert router.failed(one, 1.0)
    assert router.until_due(1.0) == 1.0
    router.probe_began(one)
    router.probe_ended(one, 2.0, healthy=True)
    router.succeeded(one)  # it has answered: all is forgotten
    for _ in range(eject_after - 1):
        assert not router.failed(one, 3.0)
    assert router.failed(one, 3.0)
    assert router.until_due(3.0) == 0.5


def test_it_is_tried_by_one_at_a_time_and_others_do_not_wait_for_its_time() -> None:
    (one,) = urls(1)
    router = ReplicaRouter(Routing(), [one])
    router.failed(one, 0.0, reached=False)
    assert router.due(9.0) == one
    router.probe_began(one)
    assert router.due(9.0) is None
    assert router.until_due(9.0) == math.inf
    router.probe_ended(one, 9.0, healthy=False)
    assert router.until_due(9.0) == 1.0


def test_an_answer_to_an_earlier_call_brings_it_back() -> None:
    (one,) = urls(1)
    router = ReplicaRouter(Routing(), [one])
    router.failed(one, 0.0, reached=False)
    router.succeeded(one)
    assert router.live and router.until_due(0.0) == math.inf


def test_those_that_stay_keep_what_is_known_and_those_that_return_do_not() -> None:
    one, two, three = urls(3)
    router = ReplicaRouter(Routing(), [one, two])
    router.failed(one, 0.0, reached=False)
    router.update([one, two, three])
    assert router.due(0.5) == one
    router.update([two])
    router.update([one, two])
    assert router.all_live


def test_calls_to_one_that_left_and_returned_are_counted_once() -> None:
    one, two = urls(2)
    router = ReplicaRouter(Routing(), [one, two])
    router.began(one)
    router.began(one)
    router.update([two])
    router.ended(one)
    router.update([one, two])
    router.began(two)
    router.ended(one)
    assert [router.pick("") for _ in range(2)] == [one, one], "nothing is under way to it, not less than that"
    router.began(one)
    assert {router.pick("") for _ in range(2)} == {one, two}


def happen(router: ReplicaRouter, rng: Random, under_way: list[str], now: float) -> None:
    """One of the things that may happen; `under_way` has a name for each call that goes on."""
    match rng.randrange(6):
        case 0:
            router.update(rng.sample(urls(4), rng.randint(0, 4)))
        case 1 if under_way:
            router.ended(under_way.pop(rng.randrange(len(under_way))))
        case 2:
            router.failed(rng.choice(urls(4)), now, reached=rng.random() < 0.5)
        case 3 if (due := router.due(now)) is not None:
            router.probe_began(due)
            router.probe_ended(due, now, healthy=rng.random() < 0.5)
        case 4:
            router.succeeded(rng.choice(urls(4)))
        case _:
            name = router.pick(rng.choice(KEYS))
            assert (name is None) == (not router.live)
            if name is not None:
                router.began(name)
                under_way.append(name)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_under_way_is_known_however_replicas_come_and_go(seed: int) -> None:
    """Whatever happened, in the end the next calls are spread evenly, as over replicas that do nothing."""
    rng = Random(seed)
    names = urls(4)
    router = ReplicaRouter(Routing(), names)
    under_way: list[str] = []
    for now in range(400):
        happen(router, rng, under_way, float(now))
    for name in under_way:
        router.ended(name)
    router.update(names)
    for name in names:
        router.succeeded(name)
    counts = Counter[str]()
    for _ in range(20):
        name = str(router.pick(""))
        router.began(name)
        counts[name] += 1
    assert counts == dict.fromkeys(names, 5)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"imbalance": 0.9}, "llm.routing.imbalance is 0.9"),
        ({"eject_after": 0}, "llm.routing.eject_after is 0"),
        ({"eject_seconds": 0.0}, "llm.routing.eject_seconds is 0"),
        ({"eject_seconds": 9.0, "eject_cap": 3.0}, "at most llm.routing.eject_cap, which is 3"),
    ],
)
def test_numbers_out_of_range_are_refused(fields, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Routing(**fields)
