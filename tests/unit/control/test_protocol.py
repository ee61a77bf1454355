import pytest

from peerloom.control.protocol import WrongSignature, seal, unseal
from peerloom.services.secret import Secret

TOKEN = Secret("token-0f3a9c")
NONCE = b"2b7e\n"
REQUEST = seal(TOKEN, "request", NONCE, {"verb": "pause"})


def test_a_request_belongs_to_one_connection() -> None:
    assert unseal(TOKEN, "request", NONCE, REQUEST) == {"verb": "pause"}
    with pytest.raises(WrongSignature):
        unseal(TOKEN, "request", b"2b7f\n", REQUEST)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"GET /status HTTP/1.1\r\n",
        REQUEST.replace(b"pause", b"drain"),
        REQUEST.replace(b'{"', b'{ "'),
        REQUEST.partition(b" ")[2],
        b"x" + REQUEST,
        "ß {}\n".encode(),
        b"\xff {}\n",
    ],
)
def test_what_was_tampered_with_is_refused(line: bytes) -> None:
    with pytest.raises(WrongSignature):
        unseal(TOKEN, "request", NONCE, line)


def test_another_token_is_refused() -> None:
    with pytest.raises(WrongSignature):
        unseal(Secret("another"), "request", NONCE, REQUEST)


def test_an_answer_is_to_one_request_from_one_run() -> None:
    answer = seal(TOKEN, "answer", REQUEST, {"told": "paused"})
    assert unseal(TOKEN, "answer", REQUEST, answer) == {"told": "paused"}
    for kind, before in (("request", REQUEST), ("answer", NONCE), ("answer", REQUEST + b"\n")):
        with pytest.raises(WrongSignature):
            unseal(TOKEN, kind, before, answer)


def test_no_two_pairs_of_lines_have_the_same_signature() -> None:
    line = seal(TOKEN, "request", NONCE, {"verb": "pause"})
    signature, _, body = line.rstrip().partition(b" ")
    with pytest.raises(WrongSignature):
        unseal(TOKEN, "request", NONCE + body[:1], signature + b" " + body[1:] + b"\n")
