"""What the command line prints, and what it does if nobody reads it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from peerloom.cli.output import echo, echo_json
from peerloom.services.secret import Secret

MAIN = "from peerloom.cli import main; main()"
RUN = ("run", "coral", "engine=local", "llm=simulated", "limit=1")


@pytest.mark.parametrize("redirected", [">&- 2>&- <&-", "> /dev/full 2>&1", "2>&1 | true", "--json | true"])
def test_a_run_whose_output_nobody_reads_finishes(tmp_path: Path, redirected: str) -> None:
    command = f'set -o pipefail; "$0" -c "$1" {" ".join(RUN)} --run-dir "$2" {redirected}'
    words = ["bash", "-c", command, sys.executable, MAIN, str(tmp_path / "run")]
    assert subprocess.run(words, check=False).returncode == 0
    assert (tmp_path / "run" / "data" / "part-000-0001-0000.jsonl").read_text().count("\n") == 1


def test_arguments_that_are_not_utf8_are_refused_before_anything_starts(tmp_path: Path) -> None:
    bad = os.fsencode(tmp_path) + b"/bad\xff"
    command = [sys.executable, "-c", MAIN, *RUN, "--run-dir", bad]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 2
    assert b"error: argument 7 is not UTF-8: " + os.fsencode(tmp_path) + b"/bad\\udcff" in done.stderr
    assert not os.path.exists(bad)


def test_a_current_directory_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    where = os.fsencode(tmp_path) + b"/bad\xff"
    os.mkdir(where)
    command = [sys.executable, "-c", MAIN, *RUN]
    done = subprocess.run(command, capture_output=True, check=False, cwd=where)
    assert done.returncode == 2
    assert b"the current directory is not UTF-8" in done.stderr
    assert os.listdir(where) == []


def test_text_is_masked_and_only_text(capsys: pytest.CaptureFixture[str]) -> None:
    secret = Secret("sk-0123456789")
    echo(f"key {secret.reveal()} \x1b[2J\x9b31m", stderr=True)
    assert capsys.readouterr().err == "key *** \ufffd[2J\ufffd31m\n"
    echo_json({"text": "\x1b[2J\x9b31m\x7f", "path": Path("a")})
    assert capsys.readouterr().out == '{"text":"\\u001b[2J\\u009b31m\\u007f","path":"a"}\n'
