from protocol_helpers import ANN, BEN, ask, item, rows, task, view

from peerloom.protocol import outbox as module
from peerloom.protocol.messages import Deliver, Delivered
from peerloom.protocol.outbox import Outbox
from peerloom.task import TaskId


class Places(dict[str, str]):
    """Where each target is."""

    def choose(self, target: str, id: TaskId) -> str | None:
        return self.get(target)


def make(places: dict[str, str] | None = None) -> tuple[Outbox, Places]:
    where = Places(places if places is not None else {"tell": BEN})
    return Outbox(ANN, where.choose), where


def only(deliveries: list[tuple[str, Deliver]]) -> Deliver:
    assert len(deliveries) == 1
    return deliveries[0][1]


def test_one_delivery_is_under_way_to_a_destination_and_the_rest_coalesce():
    outbox, _ = make()
    outbox.put("tell", item(0))
    first = only(outbox.next_deliveries(1))
    outbox.put("tell", item(1))
    outbox.put("tell", item(2))
    assert outbox.next_deliveries(1) == []

    outbox.answered(BEN, Delivered(1, first.seq, True))

    assert rows(only(outbox.next_deliveries(1)).items) == [1, 2]


def test_destinations_do_not_wait_for_each_other():
    outbox, _ = make({"tell": BEN, "ask": ANN})
    outbox.put("tell", item(0))
    outbox.next_deliveries(1)
    outbox.put("ask", item(1))
    assert [name for name, _ in outbox.next_deliveries(1)] == [ANN]


def test_a_batch_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "MAX_ITEMS", 2)
    outbox, _ = make()
    for row in range(3):
        outbox.put("tell", item(row))
    first = only(outbox.next_deliveries(1))
    assert rows(first.items) == [0, 1]
    outbox.answered(BEN, Delivered(1, first.seq, True))
    assert rows(only(outbox.next_deliveries(1)).items) == [2]


def test_what_is_refused_goes_first_next_time():
    outbox, _ = make()
    outbox.put("tell", item(0))
    refused = only(outbox.next_deliveries(1))
    outbox.put("tell", item(1))

    outbox.answered(BEN, Delivered(2, refused.seq, False))

    assert outbox.waiting() == [item(0).header, item(1).header]
    assert rows(only(outbox.next_deliveries(2)).items) == [0, 1]


def test_what_got_no_answer_is_uncertain_and_stays():
    outbox, _ = make()
    outbox.put("tell", item(0))
    sent = only(outbox.next_deliveries(1))

    assert outbox.failed(BEN, sent.seq)

    assert not outbox.busy
    assert outbox.uncertain() == [item(0).header]
    assert outbox.waiting() == []
    assert outbox.next_deliveries(1) == []
    outbox.answered(BEN, Delivered(1, sent.seq, True))  # too late to count
    assert outbox.uncertain() == [item(0).header]


def test_a_deadline_that_comes_after_the_answer_changes_nothing():
    outbox, _ = make()
    outbox.put("tell", item(0))
    sent = only(outbox.next_deliveries(1))
    outbox.put("tell", item(1))
    outbox.answered(BEN, Delivered(1, sent.seq, True))

    assert not outbox.failed(BEN, sent.seq)

    assert outbox.uncertain() == []
    assert rows(only(outbox.next_deliveries(1)).items) == [1]


def test_of_two_uncertain_copies_the_newer_is_kept():
    outbox, _ = make({"tell": BEN, "ask": "peer-2.0"})
    outbox.put("tell", item(0, hop=1))
    older = only(outbox.next_deliveries(1))
    outbox.put("ask", item(0, hop=3))
    newer = only(outbox.next_deliveries(1))

    outbox.failed("peer-2.0", newer.seq)
    outbox.failed(BEN, older.seq)

    assert outbox.uncertain() == [item(0, hop=3).header]


def test_a_lost_destination_leaves_uncertain_and_homeless_tasks_that_settling_routes_anew():
    outbox, places = make()
    outbox.put("tell", item(0))
    outbox.next_deliveries(1)
    outbox.put("tell", item(1))

    outbox.mark_lost(view(2, ask))

    assert outbox.uncertain() == [item(0).header]
    assert outbox.waiting() == [item(1).header]
    places["tell"] = "peer-1.1"
    outbox.reroute()
    assert outbox.uncertain() == []
    [(destination, batch)] = outbox.next_deliveries(2)
    assert destination == "peer-1.1"
    assert sorted(rows(batch.items)) == [0, 1]


def test_a_task_without_a_host_waits_for_one():
    outbox, places = make({})
    outbox.put("tell", item(0))
    assert outbox.next_deliveries(1) == []
    assert outbox.waiting() == [item(0).header]
    places["tell"] = BEN
    outbox.reroute()
    assert [name for name, _ in outbox.next_deliveries(2)] == [BEN]


def test_dropped_tasks_are_forgotten_wherever_they_are():
    outbox, places = make()
    outbox.put("tell", item(0))
    outbox.failed(BEN, only(outbox.next_deliveries(1)).seq)
    outbox.put("tell", item(1))
    places.clear()
    outbox.put("tell", item(2))
    outbox.put("tell", item(3))

    outbox.drop([task(0), task(1), task(2)])

    assert outbox.uncertain() == []
    assert outbox.waiting() == [item(3).header]
