"""What is committed works on any machine: it names no one's folders and no package registry."""

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
from source_tree import ROOT, expect_none

FOREIGN = {
    "a folder of one machine": re.compile(r"(?<![\w.~{}$/-])/(?:home|root|Users|work|workspace)/"),
    "a package registry": re.compile(
        r"files\.pythonhosted|(?:test\.)?pypi\.org/simple|registry\.(?:npmjs|yarnpkg)|conda\.anaconda", re.I
    ),
    "a choice of package registry": re.compile(r"--(?:extra-)?index-url|--find[-]links"),
}


def foreign_names(root: Path, files: Iterable[str]) -> list[str]:
    """Every line of these files that holds only on some machine or network."""
    found: list[str] = []
    for file in files:
        data = (root / file).read_bytes()
        if b"\0" in data:
            continue
        for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
            for what, pattern in FOREIGN.items():
                if match := pattern.search(line):
                    found.append(f"{file}:{number}: names {what}: {match[0]}")
    return found


def committed(root: Path) -> list[str]:
    """What git tracks, or would after `git add --all`."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    )
    return sorted({file for file in listing.stdout.split("\0") if file and (root / file).is_file()})


def test_committed_files_name_nothing_foreign() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    files = committed(ROOT)
    assert "pyproject.toml" in files
    expect_none(foreign_names(ROOT, files))


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("see /ho|me/ann/notes.txt", "a folder of one machine"),
        ('path = "/ro|ot/.cache"', "a folder of one machine"),
        ("source.path=/wo|rk/q.jsonl", "a folder of one machine"),
        ("https://files.Python|Hosted.org/packages", "a package registry"),
        ("https://pypi.org|/simple/", "a package registry"),
        ("--index|-url x", "a choice of package registry"),
        ("--extra-index|-url x", "a choice of package registry"),
        ("--find|-links wheels", "a choice of package registry"),
    ],
)
def test_a_foreign_name_is_found(tmp_path: Path, line: str, what: str) -> None:
    (tmp_path / "a.md").write_text("fine\n" + line.replace("|", ""))  # cut, for this file is checked too
    (found,) = foreign_names(tmp_path, ["a.md"])
    assert found.startswith(f"a.md:2: names {what}: ")


@pytest.mark.parametrize(
    "line",
    [
        "~/data/q.jsonl",
        "$HOME/data/a",
        "https://example.org/home/",
        "docs/home/a",
        "/tmp/a",
        "pypi.org/project/x",
    ],
)
def test_what_holds_everywhere_is_fine(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.md").write_text(line)
    (tmp_path / "b.bin").write_bytes(b"\0/" + b"home/ann")
    assert foreign_names(tmp_path, ["a.md", "b.bin"]) == []


def test_ignored_files_are_not_committed(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    for name, text in ((".gitignore", "runs/\n"), ("new.py", ""), ("runs/row.jsonl", "")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert committed(tmp_path) == [".gitignore", "new.py"]
