"""A prefix cache knows what it has met, block by block, and forgets the oldest."""

from peerloom.services.llm.simulated.prefix_cache import PrefixCache

SYSTEM = ("system", "s" * 640)


def user(letter: str, chars: int = 640) -> tuple[str, str]:
    return ("user", letter * chars)


def test_what_prompts_have_in_common_is_met_again() -> None:
    cache = PrefixCache(100_000)
    assert cache.add([SYSTEM, user("a")], "reply") == 0
    assert cache.add([SYSTEM, user("b")], "reply") == 160, "the system message, in whole blocks"
    assert cache.add([user("b"), SYSTEM], "reply") == 0, "only what a prompt begins with"
    assert cache.add([("developer", "s" * 640), user("a")], "reply") == 0, "roles are part of it"


def test_a_conversation_is_met_up_to_its_last_reply() -> None:
    cache = PrefixCache(100_000)
    reply = "r" * 640
    cache.add([SYSTEM, user("a")], reply)
    longer = [SYSTEM, user("a"), ("assistant", reply), user("b")]
    assert cache.add(longer, "x") == 3 * (640 + 16) // 64 * 16
    assert cache.add([*longer[:2], ("assistant", "another"), user("b")], "x") < 3 * 160


def test_the_longest_unused_goes_first() -> None:
    cache = PrefixCache(1_000)
    for letter in "ab":
        cache.add([user(letter, 1_600)], "")
    assert cache.add([user("a", 1_600)], "") == 400
    cache.add([user("c", 1_600)], "")
    assert len(cache) <= 1_000
    assert cache.add([user("a", 1_600)], "") == 400
    assert cache.add([user("b", 1_600)], "") < 400
