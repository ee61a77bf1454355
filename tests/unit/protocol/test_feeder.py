from protocol_helpers import ANN, FEED, STORE, admit, ask, enter, feeder, item, rows, sink, task, tell, view

from peerloom.idset import IdSet
from peerloom.protocol.feeder import Feeder
from peerloom.protocol.messages import (
    Ack,
    Delivered,
    DoneQuery,
    DoneReply,
    Drain,
    Exhausted,
    Item,
    Pace,
    Prepare,
    Report,
    ViewCommit,
)
from peerloom.protocol.view import PEER, TO_SINK, Member
from peerloom.task import Header

EMPTY = IdSet().encode()


def make(in_flight: int = 3) -> Feeder:
    """The feeder of a new run, in view 1."""
    machine = Feeder(FEED, in_flight)
    enter(machine, view(1), ViewCommit(1, past=[EMPTY]))
    return machine


def ack(*numbers: int, view: int = 1) -> Ack:
    return Ack(view, STORE, [task(row) for row in numbers])


def census(machine: Feeder, resolve: ViewCommit) -> Report:
    """Into the view of `resolve`, with its deliveries answered by then."""
    for destination, batch in machine.outgoing():
        machine.answered(destination, Delivered(batch.view, batch.seq, True))
    return enter(machine, view(resolve.view), resolve)


def test_it_admits_as_many_as_there_are_permits():
    machine = make(2)
    assert machine.room == 2
    admit(machine, item(0), item(1))
    assert (machine.room, machine.permits) == (0, 2)
    [(destination, batch)] = machine.outgoing()
    assert (destination, rows(batch.items)) == (ANN, [0, 1])


def test_an_acknowledgement_frees_a_permit_once():
    machine = make(2)
    admit(machine, item(0), item(1))
    assert machine.ack(ack(0)) == [task(0)]
    assert machine.ack(ack(0)) == []
    assert (machine.room, machine.permits) == (1, 1)


def test_acknowledgements_of_another_view_or_of_a_stranger_are_refused():
    machine = make()
    admit(machine, item(0))
    assert machine.ack(ack(0, view=2)) == []
    assert machine.ack(Ack(1, "sink-0.1", [task(0)])) == []
    census(machine, ViewCommit(2))
    assert machine.ack(ack(0, view=1)) == []
    assert machine.permits == 1


def test_new_tasks_go_to_the_least_loaded_peer():
    machine = Feeder(FEED, 10)
    second = Member(PEER, 2, 0, ("ask",))
    enter(machine, view(1, feeder, ask, second, sink), ViewCommit(1, past=[EMPTY]))
    admit(machine, *(item(row) for row in range(4)))
    assert sorted(len(batch.items) for _, batch in machine.outgoing()) == [2, 2]


def test_a_row_that_cannot_start_goes_straight_to_its_sink():
    machine = make()
    admit(machine, item(0), target=TO_SINK)
    assert [name for name, _ in machine.outgoing()] == [STORE]
    assert machine.permits == 1


def test_nothing_is_admitted_during_a_census():
    machine = make()
    machine.prepare(Prepare(view(2)))
    assert machine.room == 0


def test_it_is_exhausted_when_the_source_is_dry_and_all_is_safe():
    machine = make()
    admit(machine, item(0))
    machine.source_ended()
    assert machine.room == 0
    assert machine.exhausted() is None
    machine.ack(ack(0))
    assert machine.exhausted() == Exhausted(1, FEED)
    assert machine.exhausted() is None, "it says so once"
    census(machine, ViewCommit(2))
    assert machine.exhausted() == Exhausted(2, FEED), "and again in each view"


def test_draining_stops_new_tasks_but_not_lost_ones():
    machine = make()
    admit(machine, item(0))
    machine.drain(Drain())
    assert machine.room == 0
    census(machine, ViewCommit(2, lost=[task(0)]))
    assert machine.lost() == [task(0)]


def test_what_is_lost_is_admitted_again_as_a_newer_attempt():
    machine = make(1)
    admit(machine, item(0))
    census(machine, ViewCommit(2, lost=[task(0)]))
    assert machine.lost() == [task(0)]
    assert machine.lost() == [task(0)], "until it is admitted"
    assert machine.attempt() == 2

    admit(machine, item(0, attempt=2))

    assert machine.lost() == []
    assert machine.permits == 1
    [(_, batch)] = machine.outgoing()
    assert batch.items == [item(0, attempt=2)]


def test_what_is_still_to_be_admitted_again_counts_as_held():
    machine = make()
    admit(machine, item(0))
    census(machine, ViewCommit(2, lost=[task(0)]))
    report = census(machine, ViewCommit(3))
    assert report.holding == [Header(task(0), 2)]
    assert machine.lost() == [task(0)]


def test_a_task_found_elsewhere_is_not_admitted_again():
    machine = make()
    admit(machine, item(0))
    census(machine, ViewCommit(2, lost=[task(0)]))
    census(machine, ViewCommit(3, discard=[task(0)]))
    assert machine.lost() == []
    admit(machine, item(0, attempt=2))  # its row had been on the way from the source
    assert machine.outgoing() == []


def test_a_census_frees_what_is_committed():
    machine = make()
    admit(machine, item(0), item(1))
    report = census(machine, ViewCommit(2, done=[task(1)]))
    assert report.permits == [task(0), task(1)]
    assert machine.permits == 1


def test_a_fresh_feeder_first_learns_what_was_done_and_what_is_in_flight():
    machine = Feeder(FEED, 3)
    machine.prepare(Prepare(view(5)))
    report = machine.report()
    assert report is not None and report.fresh
    assert machine.room == 0

    machine.commit_view(ViewCommit(5, adopt=[task(1)], past=[IdSet([task(0)]).encode()]))

    assert machine.knows(task(0)) and machine.knows(task(1))
    assert not machine.knows(task(2))
    assert (machine.permits, machine.room) == (1, 2)
    assert not census(machine, ViewCommit(6)).fresh


def test_it_stays_fresh_while_a_sink_is_missing():
    machine = Feeder(FEED, 3)
    enter(machine, view(1, feeder, ask, tell), ViewCommit(1))
    assert machine.room == 0
    assert census(machine, ViewCommit(2, past=[EMPTY])).fresh
    assert machine.room == 3


def test_a_fresh_feeder_remembers_what_is_acknowledged_before_it_is_told_of_it():
    machine = Feeder(FEED, 3)
    machine.prepare(Prepare(view(1)))
    machine.report()
    machine.ack(ack(0))
    machine.commit_view(ViewCommit(1, adopt=[task(0)], past=[EMPTY]))
    assert machine.permits == 0
    assert machine.knows(task(0))


def test_admitted_tasks_are_tasks_it_knows():
    machine = make()
    admit(machine, Item(Header(task(0), machine.attempt()), b""))
    assert machine.knows(task(0))


def test_it_knows_what_is_done():
    machine = make()
    admit(machine, *(item(row) for row in range(3)))
    machine.ack(ack(0))
    census(machine, ViewCommit(2, done=[task(1)]))
    assert [machine.is_done(task(row)) for row in range(4)] == [True, True, False, False]
    assert machine.done(DoneQuery(2, ANN, [task(1), task(2), task(0)])) == DoneReply([task(1), task(0)])


def test_an_adopted_task_is_done_only_when_it_is_acknowledged():
    machine = Feeder(FEED, 3)
    enter(machine, view(1), ViewCommit(1, adopt=[task(0)], past=[EMPTY]))
    assert not machine.is_done(task(0))
    machine.ack(ack(0))
    assert machine.is_done(task(0))


def test_a_feeder_that_is_fresh_or_in_another_view_calls_nothing_done():
    past = [IdSet([task(0)]).encode()]
    machine = Feeder(FEED, 3)
    enter(machine, view(1, feeder, ask, tell), ViewCommit(1, past=past[:0]))
    machine.ack(ack(0))
    assert machine.done(DoneQuery(1, ANN, [task(0)])) == DoneReply([])
    census(machine, ViewCommit(2, past=past))
    assert machine.done(DoneQuery(1, ANN, [task(0)])) == DoneReply([])
    assert machine.done(DoneQuery(2, "peer-9.1", [task(0)])) == DoneReply([])
    assert machine.done(DoneQuery(2, ANN, [task(0)])) == DoneReply([task(0)])


def test_what_is_given_up_and_lost_in_one_verdict_is_admitted_again():
    machine = make()
    admit(machine, item(0))
    [(destination, batch)] = machine.outgoing()
    machine.failed(destination, batch.seq)
    report = enter(machine, view(2), ViewCommit(2, discard=[task(0)], lost=[task(0)]))
    assert report.uncertain == [Header(task(0), 1)]
    assert machine.lost() == [task(0)]
    assert machine.outgoing() == []


def test_a_paused_feeder_admits_nothing_until_it_goes_on():
    machine = make(2)
    assert machine.pace(Pace(1, 2, True))
    assert machine.room == 0
    assert machine.pace(Pace(2, 2, False))
    assert machine.room == 2


def test_a_pace_that_was_overtaken_is_ignored():
    machine = make(2)
    assert machine.pace(Pace(2, 2, True))
    assert not machine.pace(Pace(1, 2, False))
    assert machine.room == 0


def test_fewer_permits_are_waited_for():
    machine = make(3)
    admit(machine, item(0), item(1), item(2))
    machine.in_flight = 1
    machine.ack(ack(0, 1))
    assert (machine.room, machine.permits) == (0, 1)
    machine.ack(ack(2))
    assert machine.room == 1
