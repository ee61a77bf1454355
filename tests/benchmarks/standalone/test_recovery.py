import os
import signal

import pytest

from benchmarks.standalone.recovery import Killer
from peerloom.events import MemberJoined, MemberLost, Progress, ViewChanged


def progress(seconds: float, rows: int) -> Progress:
    return Progress(seconds, 90, 90, 90 - rows, {"completed": rows})


def test_one_peer_is_killed_some_turns_after_a_third_of_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: killed.append((pid, number)))
    killer = Killer(tasks=90, latency=2.0)
    for member, pid in (("sink-0.1", 1), ("peer-0.1", 2), ("peer-1.1", 3)):
        killer.member_joined(MemberJoined(member, "", pid))
    killer.view_changed(ViewChanged(1, ("peer-0.1",)))
    for seconds, rows in ((5.0, 29), (10.0, 30), (14.9, 40)):
        killer.progress(progress(seconds, rows))
    assert killed == []
    for seconds in (15.0, 16.0):
        killer.progress(progress(seconds, 41))
    assert killed == [(2, signal.SIGKILL)]
    killer.member_lost(MemberLost("peer-1.1", "another one"))
    assert not killer.noticed
    killer.member_lost(MemberLost("peer-0.1", "killed"))
    killer.view_changed(ViewChanged(3, ("peer-0.2",)))
    assert killer.killed <= killer.noticed <= killer.replaced
