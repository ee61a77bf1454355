r"""Recognize the errors of many servers for a prompt that is longer than the model's context.

They come with status 400, 413, 422, 429 or 500, and gateways embed them in their own messages, so the raw
body is searched: quotation marks and signs may be escaped (as "\'" or "\u003c"). A prompt that is too long
together with the requested output counts as too long; a `max_tokens` that is too large by itself does not.
Origins are files of the named project, threads (owner/repository#number) or pages; "seen" marks the response
of a hosted server that is quoted in tests of other projects.
"""

import re

_CODES = (
    "context_length_exceeded",  # OpenAI's error code, also Groq's, Cerebras' and llama-cpp-python's
    "context_window_exceeded",  # z.ai: earendil-works/pi, ai/src/utils/overflow.ts
    "exceed_context_size_error",  # llama.cpp, tools/server/server-common.cpp: its newer error type
    "ContextWindowExceededError",  # LiteLLM, litellm/exceptions.py: the class whose name begins the message
)
_WORDS = (
    # vLLM (vllm/), 400, and projects based on it
    r"maximum context (?:length|limit|window|size)",  # renderers/params.py, entrypoints/utils.py. Also
    # OpenAI; DeepSeek (evalstate/fast-agent#621); OpenRouter, "This endpoint's ..." (Aider-AI/aider#3721);
    # SGLang; Llama on Bedrock; Mistral; Fireworks; Aleph Alpha; Ollama, server/routes.go and x/mlxrunner
    r"longer than the (?:maximum model|model.{1,6}s context) length",  # v1/engine/input_processor.py;
    # SGLang, srt/managers/tokenizer_manager.py; Together
    r"model.{1,6}s context length is only",  # renderers/params.py
    r"too long to fit into the model",  # early 2025: vllm-project/vllm#12165
    r"max_tokens must be at least 1, got -\d",  # the remaining context, before vllm-project/vllm#36789
    # SGLang, 400
    r"exceeds the maximum allowed (?:input )?length (?:of )?\(?\d+ tokens",  # srt/managers/utils.py; Poolside
    # TGI, 422, router/src/validation.rs; Together; SageMaker; text-embeddings-inference, 413 (#82, #394),
    # core/src/tokenization.rs
    r"inputs.{1,6} tokens \+ .{1,6}max_new_tokens.{1,6} must be",
    r"inputs.{1,6} must have less than \d+ (?:tokens|characters)",
    # llama.cpp, tools/server/server-context.cpp, 400; older ones also 500
    r"exceeds the available context size",
    r"larger than the max context size",  # of embeddings
    r"context size has been exceeded",  # 500
    r"input (?:\(\d+ tokens\) )?is too large to process",  # 500: above the physical batch, of embeddings
    # Ollama, server/routes.go ("the input length exceeds the context length"), 400, and its cloud ("exceeded
    # max context length by"); OpenAI's responses ("exceeds the context window of this model"); Anthropic, 400
    # ("input length and `max_tokens` exceed context limit": continuedev/continue#6136); llama-cpp-python
    # ("exceed context window of"); oMLX (ValueCell-ai/ClawX#658)
    r"exceed(?:s|ed)? (?:the |your )?(?:max |maximum )?context (?:length|window|limit)",
    r"prompt is longer than the context length",  # Ollama, llm/llama_server.go, 400
    # LM Studio, 400
    r"greater than the context length",  # Gitlawb/openclaude#353, anomalyco/opencode#2259
    r"trying to keep the first \d+ tokens",  # 0.3: lmstudio-ai/lmstudio-bug-tracker#237
    r"cannot truncate prompt with n_keep",  # since 0.4: anomalyco/opencode#11141
    r"reached context length of \d+ tokens",  # lmstudio-ai/lmstudio-bug-tracker#1251
    # TensorRT-LLM, 400
    r"prompt length.{0,80} should not exceed max_(?:seq_len|num_tokens)",  # tensorrt_llm/llmapi/llm.py
    r"exceeds maximum (?:input|sequence) length \(?\d+",  # its C++ runtime: triton-inference-server/
    # tensorrtllm_backend#565, and #141 of 2023; DeepInfra
    # Anthropic and Bedrock, 400
    r"prompt is too long",  # earendil-works/pi#102, aaif-goose/goose#7504; Fireworks; SGLang, of images
    r"input is too long",  # aws-samples/bedrock-chat#95 ("... for requested model"); Replicate
    r"input tokens exceeded",  # Nova, seen
    r"too many total text bytes",  # strands-agents/harness-sdk#3969
    r"prompt tokens \(\d+\) exceed model maximum",  # Mantle: LiteLLM, exception_mapping_utils.py
    r"too many input tokens\. max input tokens",  # Titan: aws-samples/amazon-bedrock-workshop#136
    r"expected maxLength: \d{4,}",  # in characters, of embeddings: ScrapeGraphAI/Scrapegraph-ai#400
    # Gemini, 400: google-gemini/gemini-cli#6678; Vertex AI, 400: google-gemini/gemini-cli#19727
    r"input token count.{0,40}(?:exceeds the maximum number of tokens|only supports up to)",
    # Cohere, 400: docs.cohere.com/reference/errors, cohere-ai/sandbox-topically#4. "too many tokens" followed
    # by "max tokens must be" concerns the output
    r"too many tokens: (?:(?:the )?total number of tokens|size limit exceeded|minimal context|multi-hop)",
    r"maximum prompt length is \d+",  # xAI, 400: cline/cline#3120
    r"too large for model with \d+",  # Mistral, 400, seen
    # OpenAI, 400 and 429; Groq, 400 and 413
    r"reduce the length of the (?:messages|input|prompt)",  # also Cerebras and DeepSeek
    r"input tokens exceed the configured limit",  # BerriAI/litellm#18927
    r"(?:messages|input)\[\d+\]\.content[^:]{0,20}: string too long",  # gptscript-ai/clio#41
    r"request too large for .{0,240} tokens per min",  # above the tokens of a whole minute, so that no
    # retry will do: vanna-ai/vanna-flask#11, continuedev/continue#10218
    # Others, 400
    r"exceeded model token limit",  # Moonshot: MoonshotAI/kimi-cli#2011
    r"model max length exceeded",  # Moonshot, 2024: MoonshotAI/MoonshotAI-Cookbook#18
    r"context window exceeds limit",  # MiniMax: MiniMax-AI/MiniMax-M2#119
    r"range of input length should be",  # DashScope: alibabacloud.com/help/model-studio/error-code
    r"prompt exceeds max length",  # Zhipu, code 1261: zeroclaw-labs/zeroclaw#4124
    r"number of input tokens \d+ cannot exceed",  # watsonx, seen
    r"prompt token count of \d+ exceeds",  # GitHub's models: earendil-works/pi, ai/src/utils/overflow.ts
    r"but the configured context size is",  # DS4: earendil-works/pi#6262
)
_PATTERN = re.compile("|".join((*map(re.escape, _CODES), *_WORDS)), re.IGNORECASE)
_SEARCHED = 16_384  # bytes


def is_too_long(body: bytes) -> bool:
    """Return whether an error body says that the prompt is longer than the model's context."""
    return _PATTERN.search(body[:_SEARCHED].decode(errors="replace")) is not None
