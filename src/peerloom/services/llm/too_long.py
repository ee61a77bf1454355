"""Recognize refusals of a prompt that is longer than the model's context, in the words of many servers.

They come with status 400, 413, 422 or 500, and gateways put them inside messages of their own, so the whole
body is searched.
"""

import re

_CODES = (
    "context_length_exceeded",  # OpenAI's error code; Groq, DeepSeek, LM Studio and gateways send it too
    "exceed_context_size_error",  # llama.cpp, tools/server: its error type
    "ContextWindowExceededError",  # LiteLLM, exceptions.py: the class whose name begins the message
)
_WORDS = (
    r"maximum context length",  # OpenAI; vLLM; DeepSeek; Mistral ("with 32768 maximum context length");
    # OpenRouter ("This endpoint's maximum context length is"); SGLang ("exceeds the model's maximum ...")
    r"longer than the (?:maximum model|model's context) length",  # vLLM, v1/engine; SGLang; Together
    r"model's context length is only",  # vLLM, entrypoints/openai
    r"exceeds the maximum allowed (?:input )?length",  # SGLang, managers/tokenizer_manager.py
    r"`inputs` tokens \+ `max_new_tokens` must be <=",  # TGI, router/src/validation.rs; Together
    r"`inputs` must have less than \d+ tokens",  # TGI and text-embeddings-inference, core/src/tokenization.rs
    r"exceeds the available context size",  # llama.cpp, tools/server
    r"context size has been exceeded",  # llama.cpp, tools/server
    r"input is too large to process",  # llama.cpp, tools/server, of embeddings
    r"exceeds (?:the |maximum )?context (?:length|window|limit)",  # Ollama ("the input length exceeds the
    # context length"); OpenAI's responses ("exceeds the context window of this model")
    r"greater than the context length",  # LM Studio ("The number of tokens to keep from the initial prompt")
    r"(?:trying to keep the first|reached context length of) \d+ tokens",  # LM Studio
    r"should not exceed max_(?:seq_len|input_len|num_tokens)",  # TensorRT-LLM, executor/request.py
    r"prompt length \(\d+\) exceeds maximum input length",  # TensorRT-LLM, its C++ executor
    r"prompt is too long",  # Anthropic ("prompt is too long: 210000 tokens > 200000 maximum"); Fireworks
    r"exceed context limit",  # Anthropic ("input length and `max_tokens` exceed context limit")
    r"input is too long",  # Bedrock ("Input is too long for requested model."); Databricks
    r"input token count.{0,20} exceeds the maximum number of tokens",  # Gemini
    r"too many tokens: (?:the )?total number of tokens",  # Cohere
    r"maximum prompt length is \d+",  # xAI
    r"too large for model with \d+",  # Mistral
    r"reduce the length of the (?:messages|input|prompt)",  # Groq; OpenAI's older models
    r"exceeded model token limit",  # Moonshot
    r"context window exceeds limit",  # MiniMax
    r"range of input length should be",  # Alibaba's DashScope
    r"prompt exceeds max length",  # Zhipu
    r"number of input tokens \d+ cannot exceed",  # watsonx
    r"prompt token count of \d+ exceeds",  # GitHub's models
    r"request too large for .{0,80} tokens per min",  # OpenAI, 429: above the tokens of a whole minute
)
_PATTERN = re.compile("|".join((*map(re.escape, _CODES), *_WORDS)), re.IGNORECASE)
_SEARCHED = 16_384  # bytes


def is_too_long(body: bytes) -> bool:
    """Whether an error body says that the prompt is longer than the model's context."""
    return _PATTERN.search(body[:_SEARCHED].decode(errors="replace")) is not None
