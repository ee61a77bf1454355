import pytest

from peerloom.protocol.histories import MIN_BYTES, Histories, History
from peerloom.protocol.messages import Deliver, DeltaInfo, Item, decode, encode
from peerloom.task import End, Header, Task, TaskId, Turn, new_task
from peerloom.task import decode as decode_task

ANN, BEN, CAT = "peer-0.0", "peer-1.0", "peer-2.0"
ROOM = 10_000_000
LONG = "x" * MIN_BYTES


def peers(most: int = ROOM) -> tuple[Histories, Histories, Histories]:
    return Histories(ANN, most), Histories(BEN, most), Histories(CAT, most)


def admitted(row: int = 0, attempt: int = 1, text: str = LONG) -> Task:
    return new_task(Header(TaskId(0, row, 0), attempt), {"text": text}, seed=7, label="row").with_next("tell")


def said(task: Task, *words: str) -> Task:
    for word in words:
        task = task.with_turns(Turn("ask", {"role": "user", "content": word})).with_next("tell")
    return task


def wire(item: Item) -> Item:
    message = decode(encode(Deliver(1, ANN, 1, [item])))
    assert isinstance(message, Deliver)
    return message.items[0]


def hop(sender: Histories, receiver: Histories, task: Task, *, full: bool = False) -> tuple[int, Task | None]:
    """The bytes that travel, and what the receiver makes of them."""
    item = wire(sender.pack(name_of(receiver), task, full))
    copy = receiver.unpack(name_of(sender), item)
    return len(item.payload), decode_task(copy.payload) if isinstance(copy, Item) else copy


def name_of(histories: Histories) -> str:
    return histories._name


def words(task: Task | None) -> list[str]:
    assert task is not None
    return [turn.text for turn in task.turns]


def travelled(sender: Histories, receiver: Histories, task: Task) -> Task:
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
    item = ann.pack(BEN, task, False)
    assert item.delta is None
    assert ben.unpack(ANN, item) is item
    assert ann.size == ben.size == 0


def test_a_row_travels_as_it_is():
    ann, _, _ = peers()
    row = Item(Header(TaskId(0, 0, 0)), b"row" * MIN_BYTES)
    assert ann.pack("sink-0.0", row, False) is row


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
    full = Histories("feeder-0.0", 0).pack(ANN, admitted(), False)
    task = ann.unpack("feeder-0.0", full)
    assert isinstance(task, Task)
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
    lost = said(first, "two")
    ben.pack(ANN, lost, False)  # never arrives
    task = said(first, "other two")
    item = wire(ben.pack(ANN, task, True))
    assert isinstance(ann.unpack(BEN, item), Task)
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
    Histories.pack(ann, CAT, other, False)
    ann._entries[other.id].seen[BEN] = 1
    assert hop(ann, ben, said(other, "two"))[1] is None


@pytest.mark.parametrize("turns", [3, 1_000])
def test_a_past_that_is_longer_than_what_is_here_is_missing(turns: int):
    _, ben, _ = peers()
    ann, task = Histories(ANN, ROOM), said(admitted(), "one")
    travelled(ann, ben, task)
    item = Item(task.header, b"", DeltaInfo({}, turns, b"?" * 16))
    assert ben.unpack(ANN, item) is None


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
    for histories in (ann, ben, cat):
        held = sum(
            len(history.raw_input) + sum(len(raw) for raw in history.raw_turns)
            for history in histories._entries.values()
        )
        assert held < histories.size < held + 2_000
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


def test_a_peer_that_is_no_member_any_more_has_seen_nothing():
    ann, ben, _ = peers()
    there = travelled(ann, ben, said(admitted(), "one"))
    ben.retain({BEN, CAT})
    assert ben._entries[there.id].seen == {}
    assert hop(ben, ann, said(there, "two"))[0] > MIN_BYTES
