import time
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from peerloom.events import AgentTotals, MemberLost, Notice, Progress, RunFinished, RunStarted, Starting
from peerloom.observe import LineDisplay, LiveDisplay, open_display


def console(*, terminal: bool) -> Console:
    return Console(file=StringIO(), force_terminal=terminal, width=100, color_system=None)


def printed(on: Console) -> str:
    assert isinstance(on.file, StringIO)
    return on.file.getvalue()


def snapshot(seconds: float, rows: int = 20) -> Progress:
    agents = {"tea[red]cher": AgentTotals(40, 50, 1000, 500, 100, 60.0)}
    return Progress(seconds, 100, rows + 8, 8, {"completed": rows - 1, "failed": 1}, 300, agents)


def test_a_terminal_gets_the_panel_and_a_pipe_gets_lines() -> None:
    for terminal, kind in ((True, LiveDisplay), (False, LineDisplay)):
        with open_display(console(terminal=terminal)) as display:
            assert isinstance(display, kind)


def test_a_line_every_few_seconds() -> None:
    on = console(terminal=False)
    with open_display(on) as display:
        display.progress(Progress(0.0, 100, 0, 0))
        for second in range(10, 18):
            display.progress(snapshot(second))
    lines = printed(on).splitlines()
    assert len(lines) == 2
    assert lines[0] == (
        "0:10  20/100 rows, 20%, 0:40 left; 40 turns, in flight 8, 50 tokens/s, 5.0 calls/s; "
        "completed 19, failed 1"
    )


@pytest.mark.parametrize("terminal", [True, False])
def test_a_wait_for_a_service_is_shown_with_its_end(terminal: bool) -> None:
    on = console(terminal=terminal)
    words = "for llm, which refuses calls (HTTP 429: \x1b[31mslow down)"
    with open_display(on) as display:
        display.progress(replace(snapshot(10), paused="llm", waiting=words, waiting_until=1_800_000_000.0))
    shown = " ".join(printed(on).split())
    at = time.strftime("%H:%M:%S", time.localtime(1_800_000_000.0))
    assert f"waiting until {at} for llm, which refuses calls (HTTP 429: \ufffd[31mslow down)" in shown
    assert ", paused" not in shown


def test_the_panel_shows_progress_and_agents_and_goes_away() -> None:
    on = console(terminal=True)
    with open_display(on) as display:
        display.run_started(RunStarted("runs/x", "coral"))
        display.progress(snapshot(10))
        shown = printed(on)
        display.run_finished(RunFinished("finished", "runs/x"))
    for text in ("coral", "20/100 rows, 20%", "40 turns, in flight 8", "tea[red]cher", "1,000", "1.50"):
        assert text in shown
    after = printed(on).removeprefix(shown)
    assert "\x1b[2K" in after  # its lines are erased
    assert "\x1b[?25h" in after  # and the cursor is back


def test_the_terminal_is_given_back_when_the_run_breaks_off() -> None:
    on = console(terminal=True)
    with pytest.raises(RuntimeError), open_display(on) as display:
        display.progress(snapshot(10))
        raise RuntimeError
    assert "\x1b[?25h" in printed(on)


@pytest.mark.parametrize("terminal", [True, False])
def test_the_steps_before_the_first_task_are_shown_as_they_begin(terminal: bool) -> None:
    on = console(terminal=terminal)
    with open_display(on) as display:
        for step in ("loading the model", "starting Ray"):
            display.starting(Starting(step))
            assert printed(on).rstrip(" .\n").endswith(step)
        display.run_started(RunStarted("runs/x", "coral"))
        assert printed(on).rstrip(" .\n").endswith("starting the peers")


@pytest.mark.parametrize("terminal", [True, False])
def test_turns_are_counted_before_there_is_a_row(terminal: bool) -> None:
    on = console(terminal=terminal)
    agents = {"teacher": AgentTotals(turns=1200), "student": AgentTotals(turns=34)}
    with open_display(on) as display:
        display.progress(Progress(10, 100, 8, 8, agents=agents))
        assert "1,234 turns, in flight 8" in printed(on)


@pytest.mark.parametrize("terminal", [True, False])
def test_notices_and_losses_are_printed_as_they_are(terminal: bool) -> None:
    on = console(terminal=terminal)
    with open_display(on) as display:
        display.notice(Notice("error", "[bold]model[/bold] \x1b]0;title\x07"))
        display.member_lost(MemberLost("peer-1.1", "killed"))
    assert "[bold]model[/bold] \N{REPLACEMENT CHARACTER}]0;title" in printed(on)
    assert "peer-1.1 was lost (killed)" in printed(on)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_paused_run_says_so(terminal: bool) -> None:
    on = console(terminal=terminal)
    with open_display(on) as display:
        display.progress(replace(snapshot(10), paused="asked for"))
    assert "20/100 rows, 20%" in printed(on)
    assert ", paused" in printed(on)
    assert "left" not in printed(on)


@pytest.mark.parametrize("terminal", [False, True])
def test_a_run_that_waits_for_its_service_says_which_and_promises_no_time(terminal: bool) -> None:
    why = "llm does not answer (ClientConnectorError: 10.0.0.1:8000)"
    on = console(terminal=terminal)
    with open_display(on) as display:
        display.progress(replace(snapshot(10), paused=why + "!" * 300))
        shown = printed(on)
    assert f"{why}!!!" in " ".join(shown.split())
    assert "!" * 100 not in shown
    assert " left" not in shown
