from protocol_helpers import ANN, BEN, FEED, STORE, ask, feeder, sink, task, tell, view

from peerloom.idset import IdSet
from peerloom.protocol.census import judge, reported_ids
from peerloom.protocol.messages import CommittedReply, Report, ViewCommit
from peerloom.protocol.view import Member, View
from peerloom.task import Header


def copy(row: int, hop: int = 0, attempt: int = 1) -> Header:
    return Header(task(row), attempt, hop)


def fed(*permits: int, fresh: bool = False) -> Report:
    return Report(2, FEED, permits=[task(row) for row in permits], fresh=fresh)


def held(by: str, *holding: Header, uncertain: list[Header] | None = None) -> Report:
    return Report(2, by, list(holding), uncertain or [])


def has(
    committed: list[int] | None = None, queued: list[int] | None = None, past: bytes = b""
) -> CommittedReply:
    return CommittedReply(2, STORE, [task(n) for n in committed or []], [task(n) for n in queued or []], past)


def judged(
    *reports: Report, have: CommittedReply | None = None, at: View | None = None, journal: bool = False
) -> dict[str, ViewCommit]:
    """The verdicts, with the reports that are not given left empty."""
    at = at or view(2)
    said = {member.name: Report(2, member.name) for member in at.members}
    said |= {report.sender: report for report in reports}
    return judge(at, said, {STORE: have or has()} if STORE in at.names else {}, journal=journal)


def test_a_task_in_one_place_is_left_alone():
    verdicts = judged(fed(0), held(ANN, copy(0)))
    assert all(verdict == ViewCommit(2) for verdict in verdicts.values())
    assert verdicts.keys() == {FEED, ANN, BEN, STORE}


def test_of_two_copies_the_newer_wins():
    verdicts = judged(fed(0), held(ANN, uncertain=[copy(0, hop=1)]), held(BEN, copy(0, hop=2)))
    assert verdicts[ANN].discard == [task(0)]
    assert verdicts[BEN].discard == []


def test_a_later_attempt_beats_any_hop_of_an_earlier_one():
    verdicts = judged(fed(0), held(ANN, copy(0, hop=9)), held(BEN, copy(0, attempt=2)))
    assert verdicts[ANN].discard == [task(0)]


def test_of_two_equal_copies_the_certain_one_wins():
    for uncertain, certain in ((ANN, BEN), (BEN, ANN)):
        verdicts = judged(fed(0), held(uncertain, uncertain=[copy(0, hop=1)]), held(certain, copy(0, hop=1)))
        assert verdicts[uncertain].discard == [task(0)]
        assert verdicts[certain].discard == []


def test_an_uncertain_copy_that_nobody_took_wins():
    verdicts = judged(fed(0), held(ANN, uncertain=[copy(0)]))
    assert verdicts[ANN].discard == []
    assert verdicts[FEED].lost == []


def test_a_permit_that_nobody_holds_anything_for_is_lost():
    assert judged(fed(0, 1), held(ANN, copy(1)))[FEED].lost == [task(0)]


def test_a_committed_row_frees_its_permit_and_beats_every_copy():
    verdicts = judged(fed(0), held(ANN, uncertain=[copy(0, hop=3)]), have=has(committed=[0]))
    assert verdicts[FEED].done == [task(0)]
    assert verdicts[FEED].lost == []
    assert verdicts[ANN].discard == [task(0)]


def test_a_queued_row_beats_every_copy_and_keeps_its_permit():
    verdicts = judged(fed(0), held(ANN, uncertain=[copy(0, hop=3)]), have=has(queued=[0]))
    assert verdicts[FEED] == ViewCommit(2)
    assert verdicts[ANN].discard == [task(0)]


def test_a_copy_without_a_permit_is_discarded():
    assert judged(fed(), held(ANN, copy(0)))[ANN].discard == [task(0)]


def test_while_the_sink_is_missing_nothing_is_lost():
    verdicts = judged(fed(0, 1), held(ANN, copy(1)), at=view(2, feeder, ask, tell))
    assert verdicts[FEED] == ViewCommit(2)
    assert verdicts[ANN] == ViewCommit(2)


def test_while_the_feeder_is_missing_copies_are_kept():
    verdicts = judged(held(ANN, copy(0)), at=view(2, ask, tell, sink))
    assert verdicts[ANN].discard == []


def test_a_fresh_feeder_adopts_what_is_in_flight_and_hears_of_the_past():
    past = IdSet([task(2)]).encode()
    verdicts = judged(
        fed(fresh=True),
        held(ANN, copy(0)),
        held(BEN, uncertain=[copy(2)]),
        have=has(committed=[2], queued=[1], past=past),
    )
    assert sorted(verdicts[FEED].adopt) == [task(0), task(1)]
    assert verdicts[FEED].past == [past]
    assert verdicts[ANN].discard == []
    assert verdicts[BEN].discard == [task(2)]


def test_with_two_feeders_each_hears_of_its_own():
    other = Member("feeder", 1, 0)
    verdicts = judged(
        fed(0),
        Report(2, other.name, fresh=True),
        held(ANN, copy(1)),
        at=View(2, (feeder, other, ask, tell, sink), partitions=2),
    )
    assert (verdicts[FEED].lost, verdicts[FEED].adopt) == ([task(0)], [])
    assert (verdicts[other.name].lost, verdicts[other.name].adopt) == ([], [task(1)])


def test_the_sinks_are_asked_about_everything_that_was_reported():
    reports = [fed(0), held(ANN, copy(1)), held(BEN, uncertain=[copy(2)])]
    assert reported_ids(reports) == {task(0), task(1), task(2)}


def test_with_a_journal_an_uncertain_copy_is_given_up_and_its_task_admitted_again():
    verdicts = judged(fed(0), held(ANN, uncertain=[copy(0, hop=1)]), journal=True)
    assert verdicts[ANN].discard == [task(0)]
    assert verdicts[FEED].lost == [task(0)]


def test_with_a_journal_a_certain_copy_goes_on_though_an_uncertain_one_seems_newer():
    verdicts = judged(
        fed(0), held(ANN, uncertain=[copy(0, attempt=2)]), held(BEN, copy(0, hop=1)), journal=True
    )
    assert (verdicts[ANN].discard, verdicts[BEN].discard) == ([task(0)], [])
    assert verdicts[FEED].lost == []


def test_with_a_journal_a_feeder_gives_up_what_it_had_sent_and_admits_it_again():
    report = Report(2, FEED, uncertain=[copy(0)], permits=[task(0)])
    assert judged(report, journal=True)[FEED] == ViewCommit(2, discard=[task(0)], lost=[task(0)])


def test_with_a_journal_what_a_sink_has_is_not_lost():
    for have in (has(committed=[0]), has(queued=[0])):
        verdicts = judged(fed(0), held(ANN, uncertain=[copy(0)]), have=have, journal=True)
        assert verdicts[ANN].discard == [task(0)]
        assert verdicts[FEED].lost == []


def test_with_a_journal_a_row_whose_sink_is_missing_is_given_up_but_not_yet_lost():
    verdicts = judged(fed(0), held(ANN, uncertain=[copy(0)]), at=view(2, feeder, ask, tell), journal=True)
    assert verdicts[ANN].discard == [task(0)]
    assert verdicts[FEED] == ViewCommit(2)


def test_with_a_journal_a_fresh_feeder_admits_again_what_only_uncertain_copies_prove():
    past = IdSet().encode()
    reports = fed(fresh=True), held(ANN, copy(2), uncertain=[copy(0)])
    verdicts = judged(*reports, have=has(queued=[1], past=past), journal=True)
    assert sorted(verdicts[FEED].adopt) == [task(0), task(1), task(2)]
    assert verdicts[FEED].lost == [task(0)]

    away = judged(*reports, at=view(2, feeder, ask, tell), journal=True)
    assert sorted(away[FEED].adopt) == [task(0), task(2)]
    assert away[FEED].lost == [], "its sink may have it"


def test_a_feeder_hears_which_suspects_have_not_left_the_process_where_they_are_alone():
    alone = Member("alone", 0, 0, ("ask", "tell"))
    at = view(2, feeder, ask, sink, alone)
    there = Report(2, alone.name, [copy(0), copy(1), copy(2, hop=1)], alone=[copy(0), copy(1)])
    verdicts = judged(fed(0, 1, 2), there, held(ANN, copy(1, attempt=2)), at=at)
    assert verdicts[FEED].alone == [copy(0)], "one has left, of one there is a newer copy"
    assert verdicts[alone.name].alone == []
