"""Decide a census: locate each task, and tell each member which copies to drop or admit.

A pure function of the reports. Of two copies of an id the newer wins; a queued or committed row supersedes
every copy; a task with a permit and no copy is lost and is admitted again. While the shard or feeder of an
id is missing, only the newest copy of that id is determined.

With a journal, uncertain copies are discarded: the lost receiver may have advanced the task and journaled
its turns. The feeder then continues from the journal.
"""

from collections.abc import Iterable, Mapping

from peerloom.protocol.messages import CommittedReply, Report, ViewCommit
from peerloom.protocol.view import FEEDER, View
from peerloom.task import Header, TaskId


def reported_ids(reports: Iterable[Report]) -> set[TaskId]:
    """Return all reported ids, about which the sinks are asked."""
    ids: set[TaskId] = set()
    for report in reports:
        ids.update(report.permits)
        ids.update(header.id for header in report.holding)
        ids.update(header.id for header in report.uncertain)
    return ids


def judge(
    view: View, reports: Mapping[str, Report], replies: Mapping[str, CommittedReply], *, journal: bool = False
) -> dict[str, ViewCommit]:
    """Return the `ViewCommit` for every member of `view`, by name.

    Args:
        view: the view of the census.
        reports: the members' reports, by name.
        replies: the sinks' replies, by name.
        journal: whether uncertain copies are given up.
    """
    verdicts = {name: ViewCommit(view.number) for name in reports}
    committed = {id for reply in replies.values() for id in reply.committed}
    queued = {id for reply in replies.values() for id in reply.queued}
    permits = {id for report in reports.values() for id in report.permits}
    fresh = {name for name, report in reports.items() if report.fresh}
    winners = _newest(reports, verdicts, journal)
    given_up = _given_up(reports, winners, verdicts) if journal else set[TaskId]()

    for id, holder in winners.items():
        feeder = view.feeder(id)
        unpermitted = feeder in reports and feeder not in fresh and id not in permits
        if id in committed or id in queued or unpermitted:
            verdicts[holder].discard.append(id)
    for id in permits:
        _judge_permit(view, id, id in winners, id in committed, id in queued, verdicts)
    for id in {*winners, *queued, *given_up} - committed:
        feeder = view.feeder(id)
        if feeder in fresh:
            verdicts[feeder].adopt.append(id)
            _judge_permit(view, id, id in winners, False, id in queued, verdicts)
    for member in view.of(FEEDER):
        if member.name in fresh:
            verdicts[member.name].past.extend(reply.past for reply in replies.values() if reply.past)
    _assign_suspects(view, reports, winners, verdicts)
    return verdicts


def _assign_suspects(
    view: View,
    reports: Mapping[str, Report],
    winners: Mapping[TaskId, str],
    verdicts: Mapping[str, ViewCommit],
) -> None:
    """Send each feeder its suspects in quarantine, which only the quarantine peer knows."""
    for name, report in reports.items():
        for header in report.alone:
            feeder = view.feeder(header.id)
            if feeder is not None and feeder in verdicts and winners.get(header.id) == name:
                verdicts[feeder].alone.append(header)


def _newest(
    reports: Mapping[str, Report], verdicts: Mapping[str, ViewCommit], journal: bool
) -> dict[TaskId, str]:
    """Return the holder of the newest copy of each id; the other holders must discard theirs."""
    winners: dict[TaskId, tuple[tuple[tuple[int, int], bool], str]] = {}
    for name, report in sorted(reports.items()):
        for header, rank in _ranked(report, journal):
            held = winners.get(header.id)
            if held is None or rank > held[0]:
                if held is not None and held[1] != name:
                    verdicts[held[1]].discard.append(header.id)
                winners[header.id] = (rank, name)
            elif held[1] != name:
                verdicts[name].discard.append(header.id)
    return {id: name for id, (_, name) in winners.items()}


def _given_up(
    reports: Mapping[str, Report], winners: Mapping[TaskId, str], verdicts: Mapping[str, ViewCommit]
) -> set[TaskId]:
    """Return the ids of uncertain copies, which their holders must discard."""
    ids: set[TaskId] = set()
    for name, report in reports.items():
        gone = [header.id for header in report.uncertain if winners.get(header.id) != name]
        verdicts[name].discard.extend(gone)
        ids.update(gone)
    return ids


def _ranked(report: Report, journal: bool) -> list[tuple[Header, tuple[tuple[int, int], bool]]]:
    """Return the copies with their rank: the age, then a certain copy before an uncertain one."""
    certain = [(header, (header.age, True)) for header in report.holding]
    if journal:
        return certain
    return certain + [(header, (header.age, False)) for header in report.uncertain]


def _judge_permit(
    view: View, id: TaskId, held: bool, committed: bool, queued: bool, verdicts: Mapping[str, ViewCommit]
) -> None:
    feeder = view.feeder(id)
    if feeder is None or feeder not in verdicts:
        return
    if committed:
        verdicts[feeder].done.append(id)
    elif not held and not queued and view.sink(id) is not None:
        verdicts[feeder].lost.append(id)
