from protocol_helpers import FEED, STORE, ask, deliver, enter, item, rows, sink, task, tell, view

from peerloom.idset import IdSet
from peerloom.protocol.messages import Ack, CommittedQuery, Delivered
from peerloom.protocol.shard import ShardCommitter


def make(*committed: int) -> ShardCommitter:
    """The sink, in view 1, after earlier incarnations have committed some rows."""
    shard = ShardCommitter(STORE, IdSet(task(row) for row in committed))
    enter(shard, view(1))
    return shard


def test_rows_are_acknowledged_when_their_group_is_safe():
    shard = make()
    assert shard.deliver(deliver(1, item(0), item(1))) == Delivered(1, 1, True)
    assert rows(shard.group()) == [0, 1]
    assert shard.acks() == []
    assert shard.pending == 2

    shard.group_committed()

    assert shard.acks() == [(FEED, Ack(1, STORE, [task(0), task(1)]))]
    assert shard.acks() == []
    assert shard.pending == 0
    assert task(0) in shard.committed


def test_one_group_at_a_time():
    shard = make()
    shard.deliver(deliver(1, item(0)))
    shard.group()
    shard.deliver(deliver(2, item(1)))
    assert shard.group() == []
    shard.group_committed()
    assert rows(shard.group()) == [1]


def test_a_row_that_is_here_already_is_not_taken_twice():
    shard = make()
    shard.deliver(deliver(1, item(0)))
    shard.deliver(deliver(2, item(0)))
    assert rows(shard.group()) == [0]
    shard.deliver(deliver(3, item(0)))
    shard.group_committed()
    assert shard.group() == []


def test_a_row_that_was_committed_before_is_only_acknowledged():
    shard = make(0)
    shard.deliver(deliver(1, item(0)))
    assert shard.group() == []
    assert shard.acks() == [(FEED, Ack(1, STORE, [task(0)]))]


def test_the_census_hears_what_is_queued_and_what_is_committed():
    shard = make(0)
    shard.deliver(deliver(1, item(1)))
    shard.group()
    shard.deliver(deliver(2, item(2)))

    have = shard.query(CommittedQuery(1, [task(row) for row in range(4)]))

    assert have is not None
    assert have.committed == [task(0)]
    assert sorted(have.queued) == [task(1), task(2)]
    assert have.past == b""


def test_a_fresh_feeder_hears_of_rows_that_nobody_named():
    shard = make(0)
    shard.deliver(deliver(1, item(1)))
    shard.group()
    shard.deliver(deliver(2, item(2)))

    have = shard.query(CommittedQuery(1, [], everything=True))

    assert have is not None
    assert sorted(have.queued) == [task(1), task(2)]
    assert list(IdSet.decode(have.past)) == [task(0)]


def test_a_query_of_another_view_gets_no_answer():
    assert make().query(CommittedQuery(2, [])) is None


def test_no_acknowledgement_goes_out_while_there_is_no_feeder():
    shard = make(0)
    enter(shard, view(2, ask, tell, sink))
    shard.deliver(deliver(1, item(0), view=2))
    assert shard.acks() == []
