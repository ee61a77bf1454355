import pytest

from peerloom.control.signing import (
    NONCE,
    SIGNATURE,
    TIME,
    WINDOW_SECONDS,
    Refused,
    RequestVerifier,
    is_signed_answer,
    sign_answer,
    sign_request,
)
from peerloom.services.secret import Secret

TOKEN = Secret("token-0f3a9c")


class Clock:
    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def signed(clock: Clock, token: Secret = TOKEN, body: bytes = b"{}") -> dict[str, str]:
    return sign_request(token, "POST", "/pause", body, clock)


def test_a_signed_request_is_let_in_once() -> None:
    clock = Clock()
    guard = RequestVerifier(TOKEN, clock)
    headers = signed(clock)
    assert guard.admit("POST", "/pause", b"{}", headers) == headers[NONCE]
    with pytest.raises(Refused):
        guard.admit("POST", "/pause", b"{}", headers)
    guard.admit("POST", "/pause", b"{}", signed(clock))


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/pause", b"{}"),
        ("POST", "/cancel", b"{}"),
        ("POST", "/pause", b"{ }"),
        ("POST", "/paus", b"e{}"),
    ],
)
def test_what_was_tampered_with_is_refused(method: str, path: str, body: bytes) -> None:
    clock = Clock()
    with pytest.raises(Refused):
        RequestVerifier(TOKEN, clock).admit(method, path, body, signed(clock))


@pytest.mark.parametrize("name", [TIME, NONCE, SIGNATURE])
@pytest.mark.parametrize("value", [None, "", "1000000.001", "ß\udcff"])
def test_headers_that_are_missing_or_changed_are_refused(name: str, value: str | None) -> None:
    clock = Clock()
    headers = signed(clock)
    del headers[name]
    if value is not None:
        headers[name] = value
    with pytest.raises(Refused):
        RequestVerifier(TOKEN, clock).admit("POST", "/pause", b"{}", headers)


def test_another_token_is_refused() -> None:
    clock = Clock()
    with pytest.raises(Refused):
        RequestVerifier(TOKEN, clock).admit("POST", "/pause", b"{}", signed(clock, Secret("another")))


@pytest.mark.parametrize("skew", [-WINDOW_SECONDS - 1, WINDOW_SECONDS + 1])
def test_too_old_and_too_new_are_refused(skew: float) -> None:
    headers = signed(Clock())
    with pytest.raises(Refused):
        RequestVerifier(TOKEN, Clock(Clock().now + skew)).admit("POST", "/pause", b"{}", headers)


def test_clocks_may_differ_a_little() -> None:
    headers = signed(Clock())
    for skew in (-WINDOW_SECONDS + 1, WINDOW_SECONDS - 1):
        RequestVerifier(TOKEN, Clock(Clock().now + skew)).admit("POST", "/pause", b"{}", headers)


def test_a_request_from_a_fast_clock_is_remembered_as_long_as_it_would_count() -> None:
    clock = Clock()
    guard = RequestVerifier(TOKEN, clock)
    headers = signed(Clock(clock.now + WINDOW_SECONDS - 1))
    guard.admit("POST", "/pause", b"{}", headers)
    for seconds in (WINDOW_SECONDS, WINDOW_SECONDS - 2, 2):
        clock.now += seconds
        with pytest.raises(Refused):
            guard.admit("POST", "/pause", b"{}", headers)


def test_an_answer_is_to_one_request_from_one_run() -> None:
    signature = sign_answer(TOKEN, "nonce", 200, b"paused")
    assert is_signed_answer(TOKEN, "nonce", 200, b"paused", signature)
    assert not is_signed_answer(TOKEN, "another", 200, b"paused", signature)
    assert not is_signed_answer(TOKEN, "nonce", 400, b"paused", signature)
    assert not is_signed_answer(TOKEN, "nonce", 200, b"running", signature)
    assert not is_signed_answer(Secret("another"), "nonce", 200, b"paused", signature)
    assert not is_signed_answer(TOKEN, "nonce", 200, b"paused", "ß")
