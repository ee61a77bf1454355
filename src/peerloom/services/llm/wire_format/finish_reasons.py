"""Translate the finish reasons of all servers to OpenAI's.

Case, spaces, hyphens and underscores are ignored, so `MAX_TOKENS` and `maxTokens` are equal.
"""

from peerloom.terminal.printable import printable

STOP, LENGTH, FILTERED, CALLED = "stop", "length", "content_filter", "tool_calls"
FAILED = "error"
"""The reply was interrupted for a transient reason, so the call is retried."""

# Common words come first; the origins of others are files or reference pages of the named projects.
_WORDS = {
    STOP: (
        "stop eos eos_token end_turn stop_sequence stop_string end complete completed done finished "  # many:
        # OpenAI, vLLM, SGLang, Groq, Mistral, DeepSeek; Together (eos); TGI, router/src/lib.rs (eos_token);
        # Anthropic, types/stop_reason.py (end_turn); Cohere, ChatFinishReason (COMPLETE)
        "pause_turn "  # Anthropic: a turn of server tools that was paused
        "eos_found stop_string_found "  # LM Studio, LLMPredictionStopReason
        "word "  # llama.cpp, tools/server/README.md, stop_type (with eos and limit)
        "stop_criteria_met "  # Titan on Bedrock, completionReason (with FINISHED)
        "reason_stop "  # xAI's FinishReason in protobuf, as enumerated
        "finish_reason_stop finish_reason_unspecified"  # Gemini, google/genai/types.py: as enumerated
    ),
    LENGTH: (
        "length max_tokens max_length max_output_tokens max_new_tokens token_limit "  # many
        "model_length "  # Mistral, ChatCompletionChoice
        "model_context_window_exceeded context_window_exceeded "  # Anthropic, Bedrock, Zhipu
        "compaction "  # Anthropic, types/beta/beta_stop_reason.py: paused after summing up the dialogue
        "max_predicted_tokens_reached context_length_reached "  # LM Studio
        "error_limit "  # Cohere v1, also on OCI: CohereChatResponse.FinishReasonEnum
        "limit "  # llama.cpp, stop_type
        "repetition "  # vLLM, v1/engine/__init__.py: cut since it repeats itself, which the request asked for
        "reason_max_len reason_max_context "  # xAI
        "finish_reason_max_tokens "  # Gemini
        "max_output max_steps truncated incomplete"  # gateways
    ),
    FILTERED: (
        "content_filter content_filtered refusal safety filtered blocked "  # many: OpenAI, Azure, Bedrock
        "recitation language blocklist prohibited_content spii "  # Gemini, google/genai/types.py
        "image_safety image_prohibited_content image_recitation "
        "model_armor "  # Vertex AI, Candidate.FinishReason
        "escalation "  # Gemini: LiteLLM, core_helpers.py
        "finish_reason_safety finish_reason_recitation "  # Gemini, as enumerated
        "guardrail_intervened "  # Bedrock, StopReason in bedrock-runtime/service-2.json
        "error_toxic "  # Cohere v1
        "sensitive"  # Zhipu: LiteLLM, core_helpers.py
    ),
    CALLED: "tool_calls tool_call tool_use function_call reason_tool_calls",  # the last one xAI's
    FAILED: (
        "error failed abort aborted cancelled canceled timeout network_error unavailable "  # many:
        # OpenRouter and Mistral (error), vLLM and SGLang (abort), Cohere v2 and TensorRT-LLM (timeout),
        # Zhipu (network_error)
        "insufficient_system_resource "  # DeepSeek
        "user_stopped model_unloaded "  # LM Studio
        "unload load "  # Ollama, server/routes.go
        "user_cancel "  # Cohere v1
        "time_limit reason_time_limit "  # watsonx, TextChatResultChoice; xAI
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
    """Return OpenAI's finish reason for a server's.

    Args:
        given: the server's finish reason; a reply without one ended normally.
        called: whether the reply calls tools.

    Returns:
        `stop`, `length`, `content_filter`, `tool_calls` or `error`; an unknown finish reason is returned as
        one line of at most 40 characters.
    """
    if given is None or given == "":
        return CALLED if called else STOP
    word = given if isinstance(given, str) else repr(given)
    meaning = _MEANING.get(word) or _PLAIN_MEANING.get(_plain(word))
    if meaning == CALLED and not called:
        return STOP
    return meaning or printable(" ".join(word[:_LONGEST].split()))
