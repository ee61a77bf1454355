from collections.abc import Callable
from typing import NamedTuple

import pytest

from peerloom.cli import main


class Ended(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def peerloom(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Runs the command line in this process."""

    def run(*arguments: object) -> Ended:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        code = ended.value.code
        assert isinstance(code, int | None)
        return Ended(code or 0, *capsys.readouterr())

    return run
