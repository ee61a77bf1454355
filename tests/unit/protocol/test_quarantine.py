from protocol_helpers import (
    FEED,
    STORE,
    admit,
    ask,
    deliver,
    enter,
    feeder,
    item,
    rows,
    sink,
    task,
    tell,
    view,
)

from peerloom.idset import IdSet
from peerloom.protocol.feeder import Feeder
from peerloom.protocol.messages import Ack, Delivered, Isolate, Passed, Prepare, ViewCommit
from peerloom.protocol.peer import Move, Peer
from peerloom.protocol.quarantine import Quarantine
from peerloom.protocol.view import ALONE, PEER, TO_SINK, Member, View
from peerloom.task import Header

EMPTY = IdSet().encode()
CELL = "alone-0.1"
alone = Member(ALONE, 0, 1, ("ask", "tell"))


def gathering(number: int, peer: int = 0, cell: int | None = None) -> View:
    """A view in which the peer, and the one for suspects if there is one, are these incarnations."""
    members = [feeder, sink, Member(PEER, 0, peer, ("ask", "tell"))]
    if cell is not None:
        members.append(Member(ALONE, 0, cell, ("ask", "tell")))
    return view(number, *members)


def make(*numbers: int) -> Feeder:
    """A feeder with these tasks in flight, in view 1."""
    machine = Feeder(FEED, 10)
    enter(machine, gathering(1), ViewCommit(1, past=[EMPTY]))
    admit(machine, *(item(number) for number in numbers))
    answer(machine)
    return machine


def answer(machine: Feeder) -> dict[str, list[int]]:
    """What it sends, all of it taken; rows by destination."""
    sent = machine.outgoing()
    for destination, batch in sent:
        machine.answered(destination, Delivered(batch.view, batch.seq, True))
    return {destination: rows(batch.items) for destination, batch in sent}


def lose(machine: Feeder, at: View, *numbers: int, hop: int = 0, aboard: list[Header] | None = None) -> None:
    """A view in which these tasks are lost, and admitted again at `hop`; unless they are poison."""
    enter(machine, at, ViewCommit(at.number, lost=[task(number) for number in numbers], alone=aboard or []))
    for number in numbers:
        poison = machine.deaths(task(number), hop)
        admit(machine, item(number, hop, at.number), target=TO_SINK if poison else "ask")


def suspected(*numbers: int) -> Feeder:
    """A feeder whose tasks have lost their peer twice; the process for suspects is there."""
    machine = make(*numbers)
    lose(machine, gathering(2, peer=1), *numbers)
    answer(machine)
    lose(machine, gathering(3, peer=2), *numbers)
    enter(machine, gathering(4, 2, cell=1))
    return machine


def test_after_two_deaths_a_task_is_sent_where_it_is_alone():
    machine = make(0)
    lose(machine, gathering(2, peer=1), 0)
    assert answer(machine) == {"peer-0.1": [0]}
    lose(machine, gathering(3, peer=2), 0)
    assert answer(machine) == {}, "nobody is there for it"
    assert machine.isolate() == Isolate(3, FEED)
    assert machine.isolate() is None, "it says so once"
    enter(machine, gathering(4, 2, cell=1))
    assert machine.isolate() is None
    assert answer(machine) == {CELL: [0]}


def test_only_deaths_of_peers_count():
    machine = make(0)
    for number in range(2, 6):
        lose(machine, gathering(number), 0)
        assert answer(machine) == {"peer-0.0": [0]}


def test_a_turn_gained_between_makes_innocent():
    machine = make(0)
    for number in range(2, 6):
        lose(machine, gathering(number, peer=number), 0, hop=number)
        assert answer(machine) == {f"peer-0.{number}": [0]}


def test_suspects_go_one_at_a_time_and_more_as_they_pass():
    machine = suspected(0, 1, 2, 3)
    [[first]] = answer(machine).values()
    machine.passed(Passed(4, CELL, [Header(task(first), 3)]))
    [[second, third]] = answer(machine).values()
    assert len({first, second, third}) == 3
    machine.passed(Passed(3, CELL, [Header(task(second), 3)]))  # said in another view
    machine.passed(Passed(4, CELL, [Header(task(second), 2)]))  # of another attempt
    assert answer(machine) == {}


def test_who_has_passed_is_innocent():
    machine = suspected(0)
    answer(machine)
    machine.passed(Passed(4, CELL, [Header(task(0), 3)]))
    lose(machine, gathering(5, peer=3, cell=1), 0)
    assert answer(machine) == {"peer-0.3": [0]}


def test_two_deaths_alone_are_poison():
    machine = suspected(0)
    answer(machine)
    lose(machine, gathering(5, 2, cell=2), 0)
    assert machine.deaths(task(0), 0) == 0
    assert answer(machine) == {"alone-0.2": [0]}
    lose(machine, gathering(6, 2, cell=3), 0)
    assert machine.deaths(task(0), 0) == 4
    assert answer(machine) == {STORE: [0]}
    assert machine.ack(Ack(6, STORE, [task(0)])) == [task(0)]


def test_in_company_nobody_is_blamed():
    machine = suspected(0, 1, 2)
    [[first]] = answer(machine).values()
    machine.passed(Passed(4, CELL, [Header(task(first), 3)]))
    [[second, third]] = answer(machine).values()
    for number in range(5, 7):
        lose(machine, gathering(number, 2, cell=number), second, third)
        assert machine.deaths(task(second), 0) == machine.deaths(task(third), 0) == 0
        if number == 5:
            [[alone]] = answer(machine).values()
            machine.passed(Passed(5, "alone-0.5", [Header(task(alone), 5)]))
            answer(machine)


def test_who_was_aboard_at_a_death_goes_alone_until_all_of_them_are_through():
    machine = suspected(0, 1, 2, 3, 4)
    [[first]] = answer(machine).values()
    machine.passed(Passed(4, CELL, [Header(task(first), 3)]))
    [accused] = answer(machine).values()
    lose(machine, gathering(5, 2, cell=5), *accused)
    through: set[int] = set()
    while not through >= set(accused):
        [[one]] = answer(machine).values()
        through.add(one)
        machine.passed(Passed(5, "alone-0.5", [Header(task(one), 5 if one in accused else 3)]))
    [rest] = answer(machine).values()
    assert {first, *through, *rest} == {0, 1, 2, 3, 4}


def test_the_death_of_another_partitions_process_is_no_evidence():
    machine = suspected(0)
    answer(machine)
    other = Member(ALONE, 1, 1, ("ask",))
    enter(machine, view(5, *gathering(5, 2, 1).members, other), ViewCommit(5, alone=[Header(task(0), 3)]))
    for number in (6, 7):
        lose(machine, gathering(number, 2, cell=1), 0)
        answer(machine)
    assert machine.deaths(task(0), 0) == 0


def test_a_census_tells_who_is_still_aboard():
    machine = suspected(0, 1)
    [[first]] = answer(machine).values()
    enter(machine, gathering(5, 2, cell=1), ViewCommit(5, alone=[Header(task(first), 3)]))
    assert answer(machine) == {}
    enter(machine, gathering(6, 2, cell=1))
    assert answer(machine) == {CELL: [1 - first]}


def test_another_feeder_learns_who_is_aboard():
    machine = Feeder(FEED, 10)
    there = Header(task(7), 3)
    enter(machine, gathering(5, 2, cell=1), ViewCommit(5, adopt=[task(7)], past=[EMPTY], alone=[there]))
    admit(machine, item(0))
    answer(machine)
    lose(machine, gathering(6, 3, cell=1), 0, aboard=[there])
    answer(machine)
    lose(machine, gathering(7, 4, cell=1), 0, aboard=[there])
    assert answer(machine) == {}, "somebody is aboard"
    machine.ack(Ack(7, STORE, [task(7)]))
    assert answer(machine) == {CELL: [0]}


def test_suspects_that_wait_count_as_held():
    machine = suspected(0, 1)
    machine.prepare(Prepare(gathering(5, 2, cell=1)))
    report = machine.report()
    assert report is not None
    assert sorted(header.id.row for header in report.holding) == [0, 1]
    machine.commit_view(ViewCommit(5, discard=[task(0), task(1)]))
    assert answer(machine) == {}


def test_who_was_aboard_at_a_death_is_next():
    quarantine = Quarantine()
    for _ in range(2):
        quarantine.lost([task(0), task(1), task(2)], peer=True, alone=False)
        for number in range(3):
            quarantine.deaths(task(number), 0)
    for number in range(3):
        quarantine.add(item(number))
    assert rows(quarantine.release()) == [0]
    quarantine.lost([task(0)], peer=False, alone=True)
    quarantine.add(item(0))
    assert rows(quarantine.release()) == [0]


def enter_cell(*, keep_to_end: bool = False) -> Peer:
    machine = Peer(CELL, alone=True, keep_to_end=keep_to_end)
    enter(machine, view(1, feeder, sink, ask, tell, alone))
    machine.deliver(deliver(1, item(0), sender=FEED))
    machine.arrivals()
    return machine


def test_nothing_is_routed_to_a_process_for_suspects_by_its_roles():
    at = view(1, feeder, sink, ask, tell, alone)
    assert at.hosts("ask") == [ask.name]


def test_a_suspect_leaves_after_one_turn_and_its_feeder_hears_of_it():
    machine = enter_cell()
    before, after = item(0).header, item(0, hop=1)
    assert machine.move(before, after.header, "ask") is Move.AWAY
    assert machine.passed() == []
    machine.send(before, "ask", after)
    assert machine.passed() == [(FEED, Passed(1, CELL, [before]))]
    assert machine.passed() == []
    assert [name for name, _ in machine.outgoing()] == [ask.name]


def test_without_a_journal_it_stays_to_its_end():
    machine = enter_cell(keep_to_end=True)
    first, second = item(0).header, item(0, hop=1).header
    assert machine.move(first, second, "ask") is Move.HERE
    machine.prepare(Prepare(view(2, feeder, sink, ask, tell, alone)))
    third = item(0, hop=2)
    assert machine.move(second, third.header, "tell") is Move.HERE, "also in a census"
    assert machine.move(third.header, item(0, hop=3).header, TO_SINK) is Move.AWAY


def test_it_reports_who_has_not_left():
    machine = enter_cell()
    machine.deliver(deliver(2, item(1), sender=FEED))
    machine.send(item(0).header, "ask", item(0, hop=1))
    machine.prepare(Prepare(view(2, feeder, sink, ask, tell, alone)))
    report = machine.report()
    assert report is not None
    assert report.alone == [item(1).header]
    assert item(0, hop=1).header in report.holding
    assert machine.passed() == [], "not before the census is over"
