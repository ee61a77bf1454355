import pytest

from peerloom.terminal.printable import printable


@pytest.mark.parametrize("char", ["\x1b", "\x9b", "\r", "\x07", "\u202e", "\u2066", "\ud800"])
def test_no_character_that_steers_a_terminal_is_left(char: str) -> None:
    assert printable(f"a{char}[31mb") == "a\ufffd[31mb"


def test_text_stays_as_it_is() -> None:
    assert printable("Größe:\t日本\n[red]") == "Größe:\t日本\n[red]"


def test_spaces_and_joiners_of_many_scripts_are_kept() -> None:
    assert printable("10\u00a0000\u202f%") == "10 000 %"
    assert (
        printable("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645")
        == "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
    )
    assert printable("a\u202eb") == "a\ufffdb", "nothing may turn the direction of other text"
