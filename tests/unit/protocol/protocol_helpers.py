"""Small views and tasks, and the way of a member into a view."""

from collections.abc import Sequence

from peerloom.protocol.feeder import Feeder
from peerloom.protocol.messages import Deliver, Item, Prepare, Report, ViewCommit
from peerloom.protocol.participant import Participant
from peerloom.protocol.view import FEEDER, PEER, SINK, Member, View
from peerloom.task import Header, TaskId

FEED, STORE = "feeder-0.0", "sink-0.0"
ANN, BEN = "peer-0.0", "peer-1.0"

ask = Member(PEER, 0, 0, ("ask",))
tell = Member(PEER, 1, 0, ("tell",))
feeder = Member(FEEDER, 0, 0)
sink = Member(SINK, 0, 0)
everybody = (feeder, ask, tell, sink)


def view(number: int, *members: Member) -> View:
    """A view of one partition and one shard; of everybody, unless members are named."""
    return View(number, members or everybody)


def task(row: int) -> TaskId:
    return TaskId(0, row, 0)


def item(row: int, hop: int = 0, attempt: int = 1) -> Item:
    return Item(Header(task(row), attempt, hop), b"task")


def rows(items: Sequence[Item]) -> list[int]:
    return [item.header.id.row for item in items]


def deliver(seq: int, *items: Item, sender: str = ANN, view: int = 1) -> Deliver:
    return Deliver(view, sender, seq, list(items))


def admit(machine: Feeder, *items: Item, target: str = "ask") -> None:
    for each in items:
        machine.admit(each, target)


def enter(member: Participant, at: View, resolve: ViewCommit | None = None) -> Report:
    """Take a member through a whole census into a view; its report."""
    assert member.prepare(Prepare(at))
    report = member.report()
    assert report is not None
    assert member.commit_view(resolve or ViewCommit(at.number))
    return report
