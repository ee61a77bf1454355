import pytest
import scenario
from bugs import BUGS, planted
from explore import explore, main, trace

HUNDREDS = [0, *(pytest.param(hundred, marks=pytest.mark.slow) for hundred in range(1, 10))]
RARE = {
    "company-is-blamed",
    "crowd-let-in",
    "counted-but-not-aboard",
    "fresh-feeder-calls-done",
    "granted-before-the-old-step-has-ended",
    "leases-of-unknown-tasks-leaked",
    "older-holder-not-fenced",
    "older-release-obeyed",
    "older-copy-wins",
    "vanished-segment-ignored",
}
"""Bugs that are found after many histories, or only at the end of long ones."""


@pytest.mark.parametrize("hundred", HUNDREDS)
def test_a_hundred_histories_keep_every_promise(hundred: int):
    findings = explore(range(100 * hundred, 100 * (hundred + 1)))

    assert findings.violations == []
    assert findings.rows > 400
    assert findings.redone > 10, "faults are hardly felt"
    assert findings.sessions > 110
    assert findings.recalled > 50
    assert findings.dropped > 50
    assert findings.chained > 50
    assert findings.finished > 50
    assert findings.leased > 200


@pytest.mark.slow
@pytest.mark.parametrize("hundred", range(3))
def test_without_power_loss_damage_and_suspicion_of_the_living_nothing_is_paid_twice(
    hundred: int,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(scenario, "focus", [(("kill", "heirs", "compact", "full"), (scenario.AGENT,), "")])

    findings = explore(range(100 * hundred, 100 * (hundred + 1)))

    assert findings.violations == []
    assert findings.recalled > 50
    assert findings.repaid == 0


@pytest.mark.parametrize(
    "bug", [pytest.param(bug, marks=pytest.mark.slow) if bug in RARE else bug for bug in BUGS]
)
def test_a_planted_bug_is_caught(bug: str):
    with planted(bug):
        findings = explore(range(20_000), most_violations=1)

    assert findings.violations


def test_a_seed_gives_the_same_history_again():
    assert trace(7) == trace(7)
    assert trace(7) != trace(8)


def test_the_command_line_tells_the_seed_of_a_violation(capsys: pytest.CaptureFixture[str]):
    code = main(["--histories", "200", "--processes", "1", "--bug", "lost-not-admitted-again"])

    said = capsys.readouterr().out
    assert code == 1
    seed = said.partition("VIOLATION with --seed ")[2].partition(":")[0]
    again = main(["--histories", "1", "--seed", seed, "--bug", "lost-not-admitted-again"])
    assert again == 1
    assert "the run is not finished" in capsys.readouterr().out


def test_the_command_line_is_content_with_the_protocol(capsys: pytest.CaptureFixture[str]):
    assert main(["--histories", "20", "--processes", "1"]) == 0
    assert "20 histories" in capsys.readouterr().out
