import pytest

from peerloom.printable import printable


@pytest.mark.parametrize("char", ["\x1b", "\x9b", "\r", "\x07", "\u202e", "\u2066", "\ud800"])
def test_no_character_that_steers_a_terminal_is_left(char: str) -> None:
    assert printable(f"a{char}[31mb") == "a\ufffd[31mb"


def test_text_stays_as_it_is() -> None:
    assert printable("Größe:\t日本\n[red]") == "Größe:\t日本\n[red]"
