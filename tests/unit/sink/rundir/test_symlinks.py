from pathlib import Path

import pytest

from peerloom.errors import RunDirError
from peerloom.sink.rundir.directory import RunDir


def test_a_planted_lock_is_refused_and_not_written_through(tmp_path: Path) -> None:
    RunDir.claim(tmp_path / "run").release()
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "run" / ".peerloom/run.lock").unlink()
    (tmp_path / "run" / ".peerloom/run.lock").symlink_to(victim)
    with pytest.raises(RunDirError, match=r"run\.lock.*symbolic link"):
        RunDir.claim(tmp_path / "run").release()
    assert victim.read_text() == "precious"
