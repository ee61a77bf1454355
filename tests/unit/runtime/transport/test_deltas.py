from collections.abc import Callable

import pytest

from peerloom.errors import CodecError
from peerloom.protocol.messages import Deliver, Delivered, DoneQuery, DoneReply, Item, Message
from peerloom.protocol.messages import decode as decode_message
from peerloom.protocol.messages import encode as encode_message
from peerloom.runtime.transport.base import Unreachable
from peerloom.runtime.transport.deltas import MIN_BYTES, DeltaCodec, History, Unknown
from peerloom.task import End, Header, Task, TaskId, Turn, new_task
from peerloom.task import decode as decode_task

ANN, BEN, CAT = "peer-0.0", "peer-1.0", "peer-2.0"
ROOM = 10_000_000
LONG = "x" * MIN_BYTES


def peers(most: int = ROOM) -> tuple[DeltaCodec, DeltaCodec, DeltaCodec]:
    return DeltaCodec(ANN, most), DeltaCodec(BEN, most), DeltaCodec(CAT, most)


def admitted(row: int = 0, attempt: int = 1, text: str = LONG) -> Task:
    return new_task(Header(TaskId(0, row, 0), attempt), {"text": text}, seed=7, label="row").with_next("tell")


def said(task: Task, *words: str) -> Task:
    for word in words:
        task = task.with_turns(Turn("ask", {"role": "user", "content": word})).with_next("tell")
    return task


def batch(sender: DeltaCodec, *tasks: Task) -> Deliver:
    return Deliver(1, name_of(sender), 1, [sender.item(task) for task in tasks])


def hop(
    sender: DeltaCodec, receiver: DeltaCodec, task: Task, *, full: bool = False
) -> tuple[int, Task | None]:
    """The bytes that travel, and what the receiver makes of them."""
    data = sender.encode(name_of(receiver), batch(sender, task), {0} if full else set())
    message = receiver.decode(data)
    if isinstance(message, Unknown):
        assert message.places == [0]
        return len(data), None
    return len(data), only(message)


def only(message: Message | Unknown) -> Task:
    """The task of a delivery."""
    assert isinstance(message, Deliver)
    [(header, payload)] = message.items
    task = decode_task(payload) if isinstance(payload, bytes) else payload
    assert task.header == header
    return task


def name_of(codec: DeltaCodec) -> str:
    return codec._name


def words(task: Task | None) -> list[str]:
    assert task is not None
    return [turn.text for turn in task.turns]


def travelled(sender: DeltaCodec, receiver: DeltaCodec, task: Task) -> Task:
    _, copy = hop(sender, receiver, task)
    assert copy == task
    assert copy is not None
    return copy


def test_who_has_seen_a_task_is_known_of_a_large_one_only():
    ann, ben, _ = peers()
    task = said(travelled(ann, ben, admitted()), "one")
    assert ben.seen(task) == {ANN: 0}
    assert ben.seen(said(admitted(), "one")) == {}  # not what was made here of the copy that is remembered
    assert ben.seen(admitted(1)) == {}


def test_a_task_that_has_ended_is_forgotten_when_it_leaves_and_can_be_sent_whole():
    ann, ben, _ = peers()
    ended = said(travelled(ann, ben, admitted()), "one").with_next(End())
    size, copy = hop(ben, ann, ended)
    assert copy == ended
    assert size < MIN_BYTES
    assert ben.size == 0
    size, copy = hop(ben, ann, ended, full=True)
    assert copy == ended
    assert size > MIN_BYTES
    assert ben.size == 0


def test_a_small_task_travels_whole_and_is_not_remembered():
    ann, ben, _ = peers()
    task = said(admitted(text="short"), "one")
    [item] = batch(ann, task).items
    assert isinstance(item.payload, bytes)
    assert travelled(ann, ben, task) == task
    assert ann.size == ben.size == 0


def test_a_row_travels_as_it_is():
    ann, sink = DeltaCodec(ANN, ROOM), DeltaCodec("sink-0.0", 0)
    rows = Deliver(1, ANN, 1, [Item(Header(TaskId(0, 0, 0)), b"row" * MIN_BYTES)])
    assert sink.decode(ann.encode("sink-0.0", rows)) == rows


def test_only_what_is_new_travels_to_a_peer_that_has_seen_the_task():
    ann, ben, _ = peers()
    size, there = hop(ann, ben, said(admitted(), "one"))
    assert size > MIN_BYTES
    assert there is not None
    for number in range(20):
        sender, receiver = (ben, ann) if number % 2 == 0 else (ann, ben)
        task = said(there, f"word {number}")
        size, there = hop(sender, receiver, task)
        assert size < 200
        assert there == task
    assert words(there) == ["one", *(f"word {number}" for number in range(20))]
    assert there is not None
    assert (there.input["text"], there.label, there.seed, there.next_role) == (LONG, "row", 7, "tell")


def test_several_turns_of_one_peer_travel_together():
    ann, ben, _ = peers()
    there = travelled(ann, ben, said(admitted(), "one"))
    assert words(travelled(ben, ann, said(there, "two", "three"))) == ["one", "two", "three"]


def test_who_has_seen_a_task_is_told_along_with_it():
    ann, ben, cat = peers()
    task = travelled(ann, ben, said(admitted(), "one"))
    task = travelled(ben, cat, said(task, "two"))

    size, back = hop(cat, ann, said(task, "three"))

    assert size < 300, "Cat has it from Ben that Ann has seen the input"
    assert words(back) == ["one", "two", "three"]


def test_a_feeders_task_is_remembered_too():
    ann, ben, _ = peers()
    task = travelled(DeltaCodec("feeder-0.0", 0), ann, admitted())
    there = travelled(ann, ben, said(task, "one"))
    assert hop(ben, ann, said(there, "two"))[0] < 200


def test_what_was_forgotten_is_missing_and_then_sent_whole():
    ann, ben, _ = peers()
    there = travelled(ann, ben, said(admitted(), "one"))
    task = said(there, "two")
    ann.drop(task.header)

    assert hop(ben, ann, task)[1] is None

    size, back = hop(ben, ann, task, full=True)
    assert size > MIN_BYTES
    assert back is not None
    assert back == task
    assert hop(ann, ben, said(back, "three"))[0] < 200


def test_a_history_that_went_another_way_is_missing_even_at_an_equal_attempt_and_hop():
    ann, ben, cat = peers()
    first = said(admitted(), "one")
    travelled(ben, cat, said(travelled(ann, ben, first), "this way"))
    there = said(first, "that way", "on")
    ann._entries[there.id].seen[CAT] = 2

    assert hop(ann, cat, there)[1] is None
    assert words(hop(ann, cat, there, full=True)[1]) == ["one", "that way", "on"]


def test_of_a_fork_what_both_ways_share_need_not_travel():
    ann, ben, _ = peers()
    first = travelled(ann, ben, said(admitted(), "one"))
    ben.encode(ANN, batch(ben, said(first, "two")))  # never arrives
    task = said(first, "other two")
    assert hop(ben, ann, task, full=True)[1] == task
    assert hop(ann, ben, said(task, "three"))[1] == said(task, "three")


def test_a_history_that_goes_over_to_a_fork_has_the_digests_of_the_fork():
    trunk = said(admitted(), "one")
    this, that = said(trunk, "this", "way"), said(trunk, "that", "other", "way")
    history = History(this)
    before = [history.digest(turns) for turns in range(4)]

    history.replace(that, 1)

    after = [history.digest(turns) for turns in range(5)]
    assert after == [History(that).digest(turns) for turns in range(5)]
    assert after[:2] == before[:2]
    assert not set(after[2:]) & set(before)


def test_another_input_is_another_history():
    ann, ben, _ = peers()
    travelled(ann, ben, said(admitted(), "one"))
    other = said(admitted(text=LONG + "!"), "one")
    ann.encode(CAT, batch(ann, other))
    ann._entries[other.id].seen[BEN] = 1
    assert hop(ann, ben, said(other, "two"))[1] is None


def test_a_past_that_is_longer_than_what_is_here_is_missing():
    ann, ben, cat = peers()
    there = travelled(ann, ben, said(admitted(), "one"))
    back = travelled(ben, ann, said(there, "two", "three"))
    ben.drop(back.header)
    travelled(cat, ben, said(admitted(), "one"))
    assert hop(ann, ben, said(back, "four"))[1] is None


def test_an_older_copy_goes_on_from_where_it_is():
    ann, ben, _ = peers()
    older = said(admitted(), "one")
    newer = travelled(ben, ann, said(travelled(ann, ben, older), "two"))
    assert words(newer) == ["one", "two"]
    assert words(travelled(ann, ben, said(older, "instead"))) == ["one", "instead"]


def test_memory_is_bounded_and_the_one_used_longest_ago_goes_first():
    each = 40_000
    ann, ben, _ = peers(most=100_000)
    tasks = [said(admitted(row, text="x" * each), "one") for row in range(3)]
    there = [travelled(ann, ben, task) for task in tasks[:2]]
    assert hop(ben, ann, said(there[0], "two"))[0] < 200  # so the second one is now the oldest
    travelled(ann, ben, tasks[2])

    assert max(ann.size, ben.size) <= 100_000
    assert hop(ben, ann, said(there[0], "two"), full=False)[1] is not None
    assert list(ann._entries) == [tasks[2].id, tasks[0].id]


def test_the_size_is_that_of_what_is_kept():
    ann, ben, cat = peers()
    there = travelled(ann, ben, said(admitted(), "one"))
    travelled(ben, ann, said(there, "two", "y" * 10_000))
    travelled(ben, cat, said(there, "other"))
    for codec in (ann, ben, cat):
        held = sum(
            len(history.raw_input) + sum(len(raw) for raw in history.raw_turns)
            for history in codec._entries.values()
        )
        assert held < codec.size < held + 2_000
    ben.drop(there.header)
    assert ben.size == 0


def test_a_task_that_is_larger_than_all_memory_travels_whole_each_time():
    ann, ben, _ = peers(most=MIN_BYTES)
    there = travelled(ann, ben, said(admitted(), "one"))
    size, _ = hop(ben, ann, said(there, "two"))
    assert size > MIN_BYTES
    assert ann.size == ben.size == 0


def test_switched_off_everything_travels_whole():
    ann, ben, _ = peers(most=0)
    there = travelled(ann, ben, said(admitted(), "one"))
    size, _ = hop(ben, ann, said(there, "two"))
    assert size > MIN_BYTES
    assert ann.size == ben.size == 0


class Receiver:
    """A link to a peer that takes what is sent to it; before that, `before` is called each time."""

    def __init__(self, codec: DeltaCodec, before: list[Callable[[], object]]) -> None:
        self.codec = codec
        self.before = before
        self.sizes: list[int] = []
        self.taken: list[Message] = []

    async def send(self, to: str, data: bytes) -> bytes:
        assert to == name_of(self.codec)
        self.sizes.append(len(data))
        if self.before:
            self.before.pop(0)()
        return self.codec.receive(data, self.take)

    def take(self, message: Message) -> Message:
        assert isinstance(message, Deliver)
        self.taken.append(message)
        return Delivered(1, message.seq, True)

    def host_of(self, member: str) -> str:
        return ""


async def test_a_delivery_reaches_the_protocol_once_and_complete():
    ann, ben, _ = peers()
    tasks = [travelled(ann, ben, said(admitted(row), "one")) for row in range(3)]
    deliver = batch(ben, *(said(task, "two") for task in tasks))
    link = Receiver(ann, [lambda: ann.drop(tasks[0].header), lambda: ann.drop(tasks[2].header)])

    assert await ben.send(link, ANN, deliver) == Delivered(1, 1, True)

    few, one, two = link.sizes
    assert few < MIN_BYTES < one < 2 * MIN_BYTES < two < 3 * MIN_BYTES
    assert link.taken == [deliver]


async def test_a_receiver_that_dies_after_it_asked_for_the_whole_task_has_not_taken_it():
    ann, ben, _ = peers()
    task = said(travelled(ann, ben, said(admitted(), "one")), "two")

    def die() -> None:
        raise Unreachable("dead")

    link = Receiver(ann, [lambda: ann.drop(task.header), die])
    with pytest.raises(Unreachable):
        await ben.send(link, ANN, batch(ben, task))

    assert len(link.sizes) == 2
    assert link.taken == []


async def test_any_other_message_and_its_answer_pass_unchanged():
    ann, _, _ = peers()
    question = DoneQuery(1, BEN, [TaskId(0, 1, 2)])
    answer = ann.receive(
        encode_message(question), lambda message: DoneReply([TaskId(0, 0, len(str(message)))])
    )
    assert decode_message(answer) == DoneReply([TaskId(0, 0, len(str(question)))])
    assert ann.receive(encode_message(question), lambda message: None) == b""


def test_what_is_no_message_is_refused():
    with pytest.raises(CodecError, match="not a protocol message"):
        peers()[0].decode(b"?")
