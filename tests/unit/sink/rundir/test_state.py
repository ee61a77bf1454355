import json
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest
from sink_helpers import Killed, at_system_call

from peerloom.errors import RunDirError
from peerloom.sink.rundir.directory import RunDir
from peerloom.sink.rundir.state import Fingerprint, State, differences, read_state


def state(session: int) -> State:
    return State(session=session, peerloom="0.1.0", fingerprint=Fingerprint({"seed": session}))


def test_a_killed_writer_leaves_the_old_state_or_the_new_one(tmp_path: Path) -> None:
    run_dir = RunDir.claim(tmp_path / "run")
    run_dir.write_state(state(1))

    def kill() -> None:
        raise Killed

    for number in count(1):
        with at_system_call(number, kill) as reached, suppress(Killed):
            run_dir.write_state(state(2))
        found = read_state(run_dir.path)
        assert found in (state(1), state(2))
        if not reached():
            assert number > 3
            assert found == state(2)
            break
    run_dir.release()


def test_there_is_no_state_before_the_first_session(tmp_path: Path) -> None:
    assert read_state(tmp_path) is None


@pytest.mark.parametrize("text", ["", "{", '{"session": "one"}'])
def test_a_damaged_state_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / ".peerloom").mkdir()
    (tmp_path / ".peerloom/state.json").write_text(text)
    with pytest.raises(RunDirError, match=r"state\.json cannot be read"):
        read_state(tmp_path)


def test_a_state_of_a_later_format_is_named(tmp_path: Path) -> None:
    run_dir = RunDir.claim(tmp_path)
    run_dir.write_state(state(1))
    run_dir.release()
    path = tmp_path / ".peerloom/state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))
    with pytest.raises(RunDirError, match=r"of format 2, but this release reads 1"):
        read_state(tmp_path)


def test_equal_fingerprints_do_not_differ() -> None:
    same = {"recipe": {"name": "coral", "max_rounds": 3}, "roles": ("a", "b"), "x": 1.0, "none": {}}
    again = {"recipe.name": "coral", "recipe.max_rounds": 3, "roles": ["a", "b"], "x": 1, "none": {}}
    assert differences(Fingerprint(same), Fingerprint(again)) == []


def test_every_difference_is_a_line() -> None:
    was = Fingerprint({"seed": 1, "source": {"files": [{"bytes": 5}, {"bytes": 6}]}, "llm.model": None})
    now = Fingerprint({"seed": 2, "source": {"files": [{"bytes": 7}]}, "llm.model": "m", "new": [1]})
    assert differences(was, now) == [
        "seed: was 1, now 2",
        "source.files[0].bytes: was 5, now 7",
        "source.files[1].bytes: was 6, now not there",
        'llm.model: was null, now "m"',
        "new: was not there, now [1]",
    ]


def test_many_differences_are_cut_short() -> None:
    was, now = (Fingerprint({str(key): value for key in range(30)}) for value in (1, 2))
    found = differences(was, now)
    assert len(found) == 21
    assert found[-1] == "... and 10 more"


@pytest.mark.parametrize(
    ("was", "now", "allowed"),
    [(3, 3, True), (3, 5, True), (3, None, True), (None, None, True), (5, 3, False), (None, 3, False)],
)
def test_what_may_grow_may_not_shrink(was: int | None, now: int | None, allowed: bool) -> None:
    found = differences(Fingerprint({}, {"limit": was}), Fingerprint({}, {"limit": now}))
    assert (not found) is allowed
    assert all("limit: was" in line and "not shrink" in line for line in found)


def test_an_empty_fingerprint_has_no_key() -> None:
    assert differences(Fingerprint(), Fingerprint({"seed": 1})) == ["seed: was not there, now 1"]
