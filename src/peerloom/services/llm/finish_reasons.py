"""Finish reasons: the words in which servers say how a reply ended, as OpenAI's.

Case, spaces, hyphens and underscores do not matter, so `MAX_TOKENS` and `maxTokens` are one word.
"""

from peerloom.printable import printable

STOP, LENGTH, FILTERED, CALLED = "stop", "length", "content_filter", "tool_calls"
FAILED = "error"
"""The reply broke off for a reason that may pass, so the call is to be made again."""

_WORDS = {
    STOP: (
        "stop eos eos_token end_turn stop_sequence stop_string end complete completed done finished "  # many
        "pause_turn "  # Anthropic: a turn of server tools that was paused
        "eos_found stop_string_found "  # LM Studio
        "finish_reason_stop"  # Vertex AI's enumeration
    ),
    LENGTH: (
        "length max_tokens max_length max_output_tokens max_new_tokens token_limit "  # many
        "model_length "  # Mistral
        "model_context_window_exceeded context_window_exceeded "  # Anthropic, Zhipu
        "max_predicted_tokens_reached context_length_reached "  # LM Studio
        "error_limit "  # Cohere
        "max_output max_steps limit truncated incomplete"  # gateways
    ),
    FILTERED: (
        "content_filter content_filtered refusal safety filtered blocked "  # many
        "recitation language blocklist prohibited_content spii "  # Gemini
        "image_safety image_prohibited_content image_recitation "
        "guardrail_intervened "  # Bedrock
        "error_toxic "  # Cohere
        "sensitive"  # Zhipu
    ),
    CALLED: "tool_calls tool_call tool_use function_call",
    FAILED: (
        "error failed abort aborted cancelled canceled timeout network_error unavailable "  # many
        "insufficient_system_resource "  # DeepSeek
        "user_stopped model_unloaded unload load "  # LM Studio, Ollama
        "malformed_function_call unexpected_tool_call too_many_tool_calls "  # Gemini
        "missing_thought_signature malformed_response no_image image_other "
        "malformed_model_output malformed_tool_use"  # Bedrock
    ),
}


def _plain(word: str) -> str:
    return "".join(character for character in word.casefold() if character.isalnum())


_MEANING = {word: meaning for meaning, words in _WORDS.items() for word in words.split()}
_PLAIN_MEANING = {_plain(word): meaning for word, meaning in _MEANING.items()}
_LONGEST = 40
KNOWN = frozenset({STOP, LENGTH, FILTERED, CALLED})


def finish_reason(given: object, *, called: bool = False) -> str:
    """Return OpenAI's word for how a reply ended.

    Args:
        given: the server's word; a reply without one has ended as usual.
        called: whether the reply calls tools.

    Returns:
        `stop`, `length`, `content_filter`, `tool_calls` or `error`; an unknown word as it was given, in one
        line of at most 40 characters.
    """
    if given is None or given == "":
        return CALLED if called else STOP
    word = given if isinstance(given, str) else repr(given)
    meaning = _MEANING.get(word) or _PLAIN_MEANING.get(_plain(word))
    if meaning == CALLED and not called:
        return STOP
    return meaning or printable(" ".join(word[:_LONGEST].split()))
