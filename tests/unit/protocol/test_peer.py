from protocol_helpers import ANN, BEN, ask, deliver, enter, feeder, item, rows, sink, task, tell, view

from peerloom.protocol.messages import Delivered, Prepare, ViewCommit
from peerloom.protocol.peer import Move, Peer, to_renderer
from peerloom.protocol.view import TO_SINK


def make() -> Peer:
    """Ben, who hosts `tell`, in view 1."""
    peer = Peer(BEN)
    enter(peer, view(1))
    return peer


def test_tasks_arrive_are_acted_on_and_move_on():
    peer = make()
    assert peer.deliver(deliver(1, item(0), item(1))) == Delivered(1, 1, True)
    assert rows(peer.arrivals()) == [0, 1]
    assert peer.arrivals() == []
    assert peer.acting == 2

    assert peer.move(item(0).header, item(0, hop=1).header, "tell") is Move.HERE
    assert peer.move(item(0, hop=1).header, item(0, hop=2).header, "ask") is Move.AWAY
    peer.send(item(0, hop=1).header, "ask", item(0, hop=2))

    assert peer.acting == 1
    [(destination, batch)] = peer.outgoing()
    assert (destination, batch.items) == (ANN, [item(0, hop=2)])


def test_a_finished_task_goes_to_the_sink():
    peer = make()
    peer.deliver(deliver(1, item(0)))
    assert peer.move(item(0).header, item(0, hop=1).header, TO_SINK) is Move.AWAY
    peer.send(item(0).header, TO_SINK, item(0, hop=1))
    assert [name for name, _ in peer.outgoing()] == ["sink-0.0"]


def test_a_row_is_made_by_whom_it_was_left_to():
    peer = make()
    peer.deliver(deliver(1, item(0)))
    peer.send(item(0).header, to_renderer(ANN), item(0, hop=1))
    assert [name for name, _ in peer.outgoing()] == [ANN]


def test_a_row_whose_maker_is_gone_is_made_by_its_holder():
    peer = make()
    peer.deliver(deliver(1, item(0)))
    peer.arrivals()
    peer.send(item(0).header, to_renderer(ANN), item(0, hop=1))
    enter(peer, view(2, feeder, tell, sink))
    [(destination, batch)] = peer.outgoing()
    assert (destination, batch.items) == (BEN, [item(0, hop=1)])
    assert peer.deliver(batch).accepted
    assert rows(peer.arrivals()) == [0]


def test_nothing_is_taken_before_the_first_view():
    assert Peer(BEN).deliver(deliver(1, item(0))) == Delivered(0, 1, False)


def test_a_repeated_delivery_is_answered_but_not_taken_again():
    peer = make()
    peer.deliver(deliver(1, item(0)))
    peer.arrivals()
    assert peer.deliver(deliver(1, item(0))).accepted
    assert peer.arrivals() == []


def test_other_views_and_strangers_are_refused():
    peer = make()
    enter(peer, view(2, feeder, tell, sink))
    assert peer.deliver(deliver(1, item(0), view=1)) == Delivered(2, 1, False)
    assert peer.deliver(deliver(1, item(0), sender=ANN, view=2)) == Delivered(2, 1, False)
    assert peer.acting == 0


def test_in_a_census_it_takes_the_view_holds_and_reports_once():
    peer = make()
    peer.deliver(deliver(1, item(0), item(1)))
    peer.send(item(0).header, "ask", item(0, hop=1))

    assert peer.prepare(Prepare(view(2)))
    assert not peer.prepare(Prepare(view(2)))

    assert peer.held
    assert peer.outgoing() == []
    report = peer.report()
    assert report is not None
    assert {*report.holding} == {item(0, hop=1).header, item(1).header}
    assert peer.report() is None
    assert peer.commit_view(ViewCommit(2))
    assert [name for name, _ in peer.outgoing()] == [ANN]


def test_it_reports_only_when_its_deliveries_to_the_living_are_answered():
    peer = make()
    peer.deliver(deliver(1, item(0)))
    peer.send(item(0).header, "ask", item(0, hop=1))
    [(_, batch)] = peer.outgoing()
    peer.prepare(Prepare(view(2)))
    assert peer.report() is None

    peer.answered(ANN, Delivered(2, batch.seq, False))

    report = peer.report()
    assert report is not None
    assert report.holding == [item(0, hop=1).header]


def test_what_went_to_the_dead_is_reported_as_uncertain():
    peer = make()
    peer.deliver(deliver(1, item(0)))
    peer.send(item(0).header, "ask", item(0, hop=1))
    peer.outgoing()
    peer.prepare(Prepare(view(2, feeder, tell, sink)))
    report = peer.report()
    assert report is not None
    assert (report.holding, report.uncertain) == ([], [item(0, hop=1).header])


def test_a_task_that_has_come_back_is_held_once():
    peer = make()
    peer.deliver(deliver(1, item(0)))
    peer.send(item(0).header, "ask", item(0, hop=1))
    [(_, batch)] = peer.outgoing()
    peer.deliver(deliver(2, item(0, hop=2)))
    assert peer.failed(ANN, batch.seq)
    peer.prepare(Prepare(view(2)))
    report = peer.report()
    assert report is not None
    assert (report.holding, report.uncertain) == ([item(0, hop=2).header], [])


def test_agents_go_on_during_a_census_but_hand_over_after_it():
    peer = make()
    peer.deliver(deliver(1, item(0)))
    peer.prepare(Prepare(view(2)))
    peer.report()
    assert peer.move(item(0).header, item(0, hop=1).header, "tell") is Move.AWAY
    peer.send(item(0).header, "tell", item(0, hop=1))
    assert peer.outgoing() == []
    peer.commit_view(ViewCommit(2))
    assert [name for name, _ in peer.outgoing()] == [BEN]


def test_a_discarded_copy_is_gone_even_if_an_agent_has_it():
    peer = make()
    peer.deliver(deliver(1, item(0), item(1)))
    enter(peer, view(2), ViewCommit(2, discard=[task(0)]))
    assert rows(peer.arrivals()) == [1]
    assert peer.acting == 1
    assert peer.move(item(0).header, item(0, hop=1).header, "ask") is Move.GONE
    peer.send(item(0).header, "ask", item(0, hop=1))
    assert peer.outgoing() == []


def test_the_copy_that_won_may_come_before_the_word_that_ours_has_lost():
    peer = make()
    peer.deliver(deliver(1, item(0)))
    peer.arrivals()
    peer.prepare(Prepare(view(2)))
    peer.report()

    assert peer.deliver(deliver(2, item(0, hop=3), view=2)).accepted
    assert peer.commit_view(ViewCommit(2, discard=[task(0)]))

    assert peer.arrivals() == [item(0, hop=3)]
    assert peer.move(item(0).header, item(0, hop=1).header, "ask") is Move.GONE
    assert peer.move(item(0, hop=3).header, item(0, hop=4).header, "tell") is Move.HERE


def test_the_end_of_an_older_census_is_ignored():
    peer = make()
    peer.deliver(deliver(1, item(0)))
    peer.prepare(Prepare(view(2)))
    peer.report()
    peer.prepare(Prepare(view(3)))
    assert not peer.commit_view(ViewCommit(2, discard=[task(0)]))
    assert not peer.commit_view(ViewCommit(3)), "it has not reported yet"
    assert peer.held
    assert peer.acting == 1


def test_one_that_is_behind_waits_for_its_hold():
    peer = make()
    peer.deliver(deliver(1, item(0)))
    peer.send(item(0).header, "ask", item(0, hop=1))
    [(_, batch)] = peer.outgoing()
    peer.answered(ANN, Delivered(2, batch.seq, False))
    assert peer.outgoing() == []
    enter(peer, view(2))
    [(_, again)] = peer.outgoing()
    assert again.items == batch.items


def test_tasks_of_a_role_without_a_host_wait_for_the_next_view():
    peer = make()
    enter(peer, view(2, feeder, tell, sink))
    peer.deliver(deliver(1, item(0), sender="feeder-0.0", view=2))
    peer.send(item(0).header, "ask", item(0, hop=1))
    assert peer.outgoing() == []
    assert enter(peer, view(3, feeder, ask, tell, sink)).holding == [item(0, hop=1).header]
    assert [name for name, _ in peer.outgoing()] == [ANN]


def test_a_copy_that_a_census_discards_no_longer_counts():
    machine = make()
    machine.deliver(deliver(1, item(0)))
    header = item(0).header
    assert machine.is_current(header)
    enter(machine, view(2), ViewCommit(2, discard=[header.id]))
    assert not machine.is_current(header)
