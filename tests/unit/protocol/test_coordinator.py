import pytest
from protocol_helpers import ANN, BEN, FEED, STORE, everybody, task

from peerloom.idset import IdSet
from peerloom.protocol.coordinator import Coordinator, Kill, Send, Spawn
from peerloom.protocol.messages import (
    CommittedQuery,
    CommittedReply,
    Exhausted,
    Isolate,
    Message,
    Prepare,
    Report,
    Suspect,
    ViewCommit,
)
from peerloom.protocol.view import PEER, Member

NAMES = {member.name for member in everybody}


def make() -> Coordinator:
    """All members asked for, none there yet."""
    coordinator = Coordinator(everybody, partitions=1, shards=1)
    coordinator.start()
    assert spawned(coordinator) == NAMES
    return coordinator


def running() -> Coordinator:
    """All members there, the first census over."""
    coordinator = make()
    for name in NAMES:
        coordinator.joined(name)
    hold_census(coordinator)
    coordinator.effects()
    assert coordinator.settled
    return coordinator


def hold_census(coordinator: Coordinator) -> None:
    """Let all members of the present view answer."""
    number = coordinator.view.number
    for name in coordinator.view.names:
        coordinator.receive(Report(number, name))
    for name in coordinator.view.names & {STORE}:
        coordinator.receive(CommittedReply(number, name, [], []))


def sent(coordinator: Coordinator) -> dict[str, Message]:
    return {effect.to: effect.message for effect in coordinator.effects() if isinstance(effect, Send)}


def spawned(coordinator: Coordinator) -> set[str]:
    return {effect.member.name for effect in coordinator.effects() if isinstance(effect, Spawn)}


def test_the_first_view_opens_when_all_have_joined():
    coordinator = make()
    for name in sorted(NAMES)[1:]:
        coordinator.joined(name)
    assert coordinator.effects() == []
    coordinator.joined(min(NAMES))
    assert sent(coordinator) == dict.fromkeys(NAMES, Prepare(coordinator.view))
    assert coordinator.view.number == 1
    assert not coordinator.settled


def test_a_census_asks_all_members_then_the_sinks_then_judges():
    coordinator = running()
    coordinator.census()
    assert sent(coordinator).keys() == NAMES
    for name in (ANN, BEN, STORE):
        coordinator.receive(Report(2, name))
    assert coordinator.effects() == []

    coordinator.receive(Report(2, FEED, permits=[task(0)]))
    assert sent(coordinator) == {STORE: CommittedQuery(2, [task(0)])}

    coordinator.receive(CommittedReply(2, STORE, [task(0)], []))
    verdicts = sent(coordinator)
    assert verdicts.keys() == NAMES
    assert verdicts[FEED] == ViewCommit(2, done=[task(0)])
    assert coordinator.settled


def test_a_fresh_feeder_makes_the_sinks_tell_everything():
    coordinator = running()
    coordinator.census()
    coordinator.effects()
    for name in (ANN, BEN, STORE):
        coordinator.receive(Report(2, name))
    coordinator.receive(Report(2, FEED, fresh=True))
    assert sent(coordinator) == {STORE: CommittedQuery(2, [], everything=True)}
    past = IdSet([task(0)]).encode()
    coordinator.receive(CommittedReply(2, STORE, [], [], past))
    assert sent(coordinator)[FEED] == ViewCommit(2, past=[past])


def test_no_second_census_is_asked_for_during_one():
    coordinator = running()
    coordinator.census()
    coordinator.census()
    assert coordinator.view.number == 2


def test_a_lost_member_is_replaced_only_when_a_census_without_it_is_over():
    coordinator = running()
    coordinator.lost(STORE, "killed")
    effects = coordinator.effects()
    assert effects[0] == Kill(STORE, "killed")
    assert not any(isinstance(effect, Spawn) for effect in effects)
    assert coordinator.view.names == NAMES - {STORE}

    hold_census(coordinator)

    assert spawned(coordinator) == {"sink-0.1"}
    coordinator.joined("sink-0.1")
    assert coordinator.view.names == NAMES - {STORE} | {"sink-0.1"}
    assert not coordinator.settled


def test_a_loss_during_a_census_starts_it_over():
    coordinator = running()
    coordinator.lost(ANN)
    coordinator.lost(BEN)
    coordinator.effects()
    assert coordinator.view.number == 3
    for name in (FEED, STORE):
        coordinator.receive(Report(2, name))
    assert coordinator.effects() == [], "these are answers to the census before"
    hold_census(coordinator)
    assert spawned(coordinator) == {"peer-0.1", "peer-1.1"}


def test_saying_twice_that_a_member_is_lost_does_no_harm():
    coordinator = running()
    coordinator.lost(ANN)
    coordinator.effects()
    coordinator.lost(ANN)
    assert coordinator.effects() == []


def test_one_that_dies_while_it_starts_is_replaced_at_once():
    coordinator = make()
    coordinator.lost(ANN)
    assert spawned(coordinator) == {"peer-0.1"}
    coordinator.joined(ANN)
    assert [effect.name for effect in coordinator.effects() if isinstance(effect, Kill)] == [ANN]
    for name in NAMES - {ANN} | {"peer-0.1"}:
        coordinator.joined(name)
    assert coordinator.view.names == NAMES - {ANN} | {"peer-0.1"}


def test_when_all_are_lost_all_are_replaced():
    coordinator = running()
    for name in NAMES:
        coordinator.lost(name)
    assert spawned(coordinator) == {f"{name[:-1]}1" for name in NAMES}


def test_a_suspected_member_is_lost():
    coordinator = running()
    coordinator.receive(Suspect(1, ANN, BEN))
    assert coordinator.view.names == NAMES - {BEN}
    assert Kill(BEN, f"suspected by {ANN}") in coordinator.effects()


def test_suspicions_of_another_view_or_by_the_lost_are_ignored():
    coordinator = running()
    coordinator.receive(Suspect(0, ANN, BEN))
    coordinator.lost(ANN)
    coordinator.receive(Suspect(2, ANN, BEN))
    assert coordinator.view.names == NAMES - {ANN}


def test_it_is_finished_when_every_feeder_of_this_view_is_exhausted():
    coordinator = running()
    assert not coordinator.finished
    coordinator.receive(Exhausted(1, FEED))
    assert coordinator.finished
    coordinator.census()
    assert not coordinator.finished
    hold_census(coordinator)
    assert not coordinator.finished, "it must be said again in the new view"
    coordinator.receive(Exhausted(2, FEED))
    assert coordinator.finished


def test_it_is_not_finished_without_its_feeders():
    coordinator = running()
    coordinator.receive(Exhausted(1, FEED))
    coordinator.lost(FEED)
    hold_census(coordinator)
    assert not coordinator.finished


def test_a_later_session_counts_its_views_from_where_it_is_told():
    coordinator = Coordinator(everybody, partitions=1, shards=1, last_view=1_000_000)
    coordinator.start()
    coordinator.census()
    assert spawned(coordinator) == NAMES, "nobody is there to be asked"
    for name in NAMES:
        coordinator.joined(name)
    assert coordinator.view.number == 1_000_001


def test_a_process_for_suspects_is_started_when_a_feeder_asks_for_it():
    coordinator = running()
    coordinator.receive(Isolate(0, FEED))
    assert not spawned(coordinator), "that was said in another view"
    coordinator.receive(Isolate(1, FEED))
    [member] = [effect.member for effect in coordinator.effects() if isinstance(effect, Spawn)]
    assert (member.kind, member.index, member.roles) == ("alone", 0, ("ask", "tell"))
    coordinator.receive(Isolate(1, FEED))
    assert not spawned(coordinator)

    coordinator.joined(member.name)
    coordinator.lost(member.name)
    hold_census(coordinator)
    assert spawned(coordinator) == {"alone-0.1"}


def test_a_run_begins_without_a_member_that_others_stand_in_for():
    other = Member(PEER, 2, 0, ("ask",))
    coordinator = Coordinator((*everybody, other), partitions=1, shards=1)
    coordinator.start()
    for name in NAMES:
        coordinator.joined(name)
    assert coordinator.view.number == 0
    coordinator.no_room(other.name)
    assert coordinator.view.names == NAMES
    hold_census(coordinator)
    assert coordinator.settled
    coordinator.joined(other.name)
    assert coordinator.view.names == {*NAMES, other.name}


@pytest.mark.parametrize("name", [ANN, STORE, FEED])
def test_a_run_does_not_begin_without_a_role_a_sink_or_a_feeder(name: str):
    coordinator = make()
    coordinator.no_room(name)
    for other in NAMES - {name}:
        coordinator.joined(other)
    assert coordinator.view.number == 0
    coordinator.joined(name)
    assert coordinator.view.number == 1
