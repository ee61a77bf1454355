"""The simulated model: pure, plausible, and as likely as they say."""

from statistics import mean, median

import pytest

from peerloom.errors import ConfigError
from peerloom.services.llm.simulated import opinion
from peerloom.services.llm.simulated.behavior import SimulatedBehavior, answer, fault_of
from peerloom.services.llm.simulated.prose import prose
from peerloom.services.llm.simulated.request import BadRequest, SimulatedRequest, read

QUESTION = "Which?\nA) one\nB) two\nC) three\nD) four"


def body(text: str = "hi", **fields):
    return {"model": "m", "messages": [{"role": "user", "content": text}], **fields}


def asks(count: int, **fields) -> list[SimulatedRequest]:
    return [read(body(f"question {n}", **fields), 0) for n in range(count)]


def test_a_reply_depends_on_request_and_seed_alone() -> None:
    behavior = SimulatedBehavior()
    base = answer(read(body(), 0), behavior)
    assert answer(read(body(), 0), behavior) == base
    changes = [read(body("ho"), 0), read(body(), 1), read(body(seed=1), 0), read(body(temperature=1), 0)]
    assert len({base.text, *(answer(ask, behavior).text for ask in changes)}) == 5


def test_a_token_limit_and_stops_cut_the_reply_and_do_not_change_it() -> None:
    whole = answer(read(body(), 0), SimulatedBehavior())
    cut = answer(read(body(max_tokens=10), 0), SimulatedBehavior())
    assert (cut.text, cut.finish_reason, cut.completion) == (whole.text[:40], "length", 10)
    assert (
        whole.finish_reason
        == answer(read(body(max_tokens=9999), 0), SimulatedBehavior()).finish_reason
        == "stop"
    )
    stopped = answer(read(body(stop=[".", "\n"]), 0), SimulatedBehavior())
    assert (stopped.text, stopped.finish_reason) == (whole.text.split(".")[0], "stop")


def test_lengths_follow_their_distribution() -> None:
    behavior = SimulatedBehavior(tokens=200, tokens_sigma=1.0)
    lengths = [answer(ask, behavior).completion for ask in asks(800)]
    assert 170 < median(lengths) < 230
    assert mean(lengths) > 1.3 * median(lengths), "the tail is heavy"
    assert {answer(ask, SimulatedBehavior(tokens=50, tokens_sigma=0)).completion for ask in asks(50)} <= set(
        range(44, 52)
    )


def test_latency_follows_its_distribution() -> None:
    assert {answer(ask, SimulatedBehavior(latency=0.5)).seconds for ask in asks(20)} == {0.5}
    spread = [answer(ask, SimulatedBehavior(latency=0.5, latency_sigma=0.3)).seconds for ask in asks(400)]
    assert 0.45 < median(spread) < 0.55
    assert len(set(spread)) == 400
    made = answer(asks(1)[0], SimulatedBehavior(latency=1, tokens_per_second=10))
    assert made.seconds == pytest.approx(1 + made.completion / 10)


def test_usage_counts_what_was_said_and_what_a_server_would_have_cached() -> None:
    system = {"role": "system", "content": "s" * 100}
    said = [system, {"role": "user", "content": "u" * 400}, {"role": "assistant", "content": "a" * 400}]
    first = answer(read({"messages": said[:2]}, 0), SimulatedBehavior())
    assert (first.prompt, first.cached) == (125 + 8, 16), "of the first call, the system message"
    next_ = answer(read({"messages": [*said, {"role": "user", "content": "v" * 40}]}, 0), SimulatedBehavior())
    assert (next_.prompt, next_.cached) == (235 + 16, 224)
    parts = [{"type": "text", "text": "x" * 40}, {"type": "image_url", "image_url": {"url": "..."}}]
    assert (
        answer(read({"messages": [{"role": "user", "content": parts}]}, 0), SimulatedBehavior()).prompt == 14
    )


def test_faults_are_as_frequent_as_their_rates_and_a_retry_may_pass() -> None:
    behavior = SimulatedBehavior(
        rate_429=0.1, rate_5xx=0.2, rate_hang=0.05, rate_garbage=0.05, rate_truncation=0.1
    )
    some = asks(4000)
    faults = [fault_of(ask, behavior, 0) for ask in some]
    assert faults == [fault_of(ask, behavior, 0) for ask in some]
    shares = {fault: faults.count(fault) / len(faults) for fault in set(faults)}
    expected = {"": 0.5, "429": 0.1, "5xx": 0.2, "hang": 0.05, "garbage": 0.05, "truncation": 0.1}
    assert shares == pytest.approx(expected, abs=0.03)
    again = [fault_of(ask, behavior, 1) for ask, fault in zip(some, faults, strict=True) if fault]
    assert 0.4 < again.count("") / len(again) < 0.6
    assert {fault_of(ask, SimulatedBehavior(), 0) for ask in some} == {""}


def test_a_truncated_reply_is_cut_in_the_middle() -> None:
    whole, cut = (
        answer(asks(1)[0], SimulatedBehavior()),
        answer(asks(1)[0], SimulatedBehavior(), truncated=True),
    )
    assert cut.finish_reason == "length"
    assert cut.text == whole.text[: len(whole.text) // 2]


def test_a_prompt_longer_than_the_context_is_refused() -> None:
    with pytest.raises(BadRequest, match="maximum context length is 100") as caught:
        answer(read(body("word " * 100), 0), SimulatedBehavior(context=100))
    assert caught.value.code == "context_length_exceeded"


def test_two_who_disagree_come_to_agree() -> None:
    """A dialogue about lettered options ends in agreement, the sooner the higher `agreement`."""

    def turns(behavior: SimulatedBehavior, question: int) -> int:
        messages = [{"role": "user", "content": f"{question} {QUESTION}"}]
        held: list[str | None] = []
        while len(held) < 20:
            made = answer(read({"messages": messages}, behavior.seed), behavior)
            held.append(opinion.stated(made.text, "ABCD"))
            if held[-1] is not None and held[-2:] == [held[-1]] * 2:
                break
            messages.append({"role": "user", "content": made.text})
        return len(held)

    assert mean(turns(SimulatedBehavior(agreement=0.9), n) for n in range(60)) < 2.6
    assert 2.6 < mean(turns(SimulatedBehavior(agreement=0.2), n) for n in range(60)) < 6
    assert {
        opinion.stated(answer(ask, SimulatedBehavior()).text, "ABCD") for ask in map(read_question, range(60))
    } == set("ABCD")


def read_question(number: int) -> SimulatedRequest:
    return read(body(f"{number}: {QUESTION}"), 0)


def test_a_choice_is_the_one_stated_last_as_often_as_the_law_says() -> None:
    def chosen(number: int, behavior: SimulatedBehavior) -> str:
        text = f'{number}: one said "The answer is (A).", then another "I think the answer is **C**, not D."'
        return answer(read(body(text, structured_outputs={"choice": ["A", "B", "C"]}), 0), behavior).text

    assert {chosen(n, SimulatedBehavior(agreement=1)) for n in range(30)} == {"C"}
    share = [chosen(n, SimulatedBehavior(agreement=0.4)) for n in range(600)].count("C") / 600
    assert share == pytest.approx(0.4 + 0.6 / 3, abs=0.06)


def test_an_example_in_the_system_message_is_no_statement() -> None:
    system = {"role": "system", "content": 'Say "The answer is (D)."'}
    said = [{"role": "user", "content": f"{n} {QUESTION}"} for n in range(40)]
    texts = [
        answer(read({"messages": [system, user]}, 0), SimulatedBehavior(agreement=1)).text for user in said
    ]
    assert {opinion.stated(text, "ABCD") for text in texts} == set("ABCD")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ([], "the body must be a JSON object"),
        ({}, "messages must be a list"),
        ({"messages": []}, "messages must be a list"),
        ({"messages": ["hi"]}, "each message must be an object"),
        ({"messages": [{"content": 7}]}, "each message must be an object"),
        (body(max_tokens="9"), "max_tokens must be a whole number"),
        (body(max_tokens=-1), "max_tokens must be a whole number"),
        (body(response_format={"type": "json_schema"}), "malformed"),
        (body(structured_outputs=[1]), "malformed"),
        (body(structured_outputs={"regex": "a"}), "either choice or json"),
        (body(response_format={"type": "grammar"}), "'grammar' is not supported"),
        (body(max_tokens=0), "max_tokens must be a whole number"),
        (body(n=0), "n must be a whole number from 1 to 128"),
        (body(stream="yes"), "stream must be true or false"),
        (body(stream_options={"include_usage": True}), "needs stream=true"),
        (body(stream=True, stream_options={"x": 1}), "include_usage, and nothing else"),
        (body(temperature=3), "temperature must be a number from 0 to 2"),
        (body(stop=[1]), "stop must be a text or a list of texts"),
        (body(tool_choice="required"), "tool_choice needs tools"),
        (body(tools=[{"type": "web_search"}]), "only tools of type function"),
        (body(top_logprobs=3), "needs logprobs=true"),
        (body(store=True), "store is not supported .* set it to False"),
        (body(use_beam_search=True), "use_beam_search is not supported"),
        ({"messages": [{"role": "wizard", "content": "hi"}]}, "role 'wizard' is not supported"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "type 'video' is not supported"),
    ],
)
def test_malformed_requests_are_refused(wrong, words) -> None:
    with pytest.raises(BadRequest, match=words):
        read(wrong, 0)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"agreement": 1.5}, "llm.agreement is 1.5"),
        ({"rate_429": -0.1}, "llm.rate_429 is -0.1"),
        ({"rate_429": 0.6, "rate_5xx": 0.6}, "add up to more than 1"),
        ({"latency": -1}, "llm.latency is -1"),
        ({"latency": float("inf")}, "llm.latency is inf"),
        ({"tokens": 0}, "llm.tokens is 0"),
        ({"tokens_per_second": 0}, "llm.tokens_per_second is 0"),
    ],
)
def test_impossible_behavior_are_refused(wrong, words) -> None:
    with pytest.raises(ConfigError, match=words):
        SimulatedBehavior(**wrong)


@pytest.mark.parametrize("chars", [0, 1, 5, 80, 1000, 20_000])
def test_prose_is_as_long_as_it_should_be(chars) -> None:
    text = prose(chars, 7)
    assert text == prose(chars, 7) != prose(chars, 8)
    assert text[0].isupper() and text.endswith(".")
    assert len(text) <= max(chars + 1, 14)
    assert len(text) >= chars - 20
    assert "  " not in text and " ," not in text
