from typing import Any

from peerloom.events import MemberLost, Notice, Progress, RunFinished, RunStarted, Starting
from peerloom.observe import LogHooks


def test_events_are_logged_with_their_fields() -> None:
    written: list[tuple[str, str, dict[str, Any]]] = []
    log = LogHooks(lambda level, event, **fields: written.append((level, event, fields)))
    log.handle("starting", Starting("starting Ray"))
    log.handle("run_started", RunStarted("d", "coral"))
    log.handle("member_lost", MemberLost("peer-1.1", "killed"))
    log.handle("notice", Notice("error", "text"))
    log.handle("run_finished", RunFinished("failed", "d"))
    assert written == [
        ("info", "starting", {"step": "starting Ray"}),
        ("info", "run_started", {"run_dir": "d", "recipe": "coral"}),
        ("warning", "member_lost", {"member": "peer-1.1", "why": "killed"}),
        ("error", "notice", {"text": "text"}),
        ("error", "run_finished", {"how": "failed", "run_dir": "d"}),
    ]


def test_progress_is_logged_now_and_then() -> None:
    written: list[float] = []
    log = LogHooks(lambda level, event, **fields: written.append(fields["seconds"]))
    for second in range(100):
        log.handle("progress", Progress(second, None, 0, 0))
    assert written == [0, 30, 60, 90]
