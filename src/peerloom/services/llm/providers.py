"""Providers with interfaces of their own, as services: each is its dialect behind HTTP.

    AnthropicService(model="claude-sonnet-4-5", calls=CallPolicy(timeout=120))

Further arguments are the dialect's.
"""

from collections.abc import Sequence
from typing import Any

from peerloom.services.llm.dialects.anthropic import AnthropicDialect
from peerloom.services.llm.dialects.azure import AzureDialect
from peerloom.services.llm.dialects.gemini import GeminiDialect
from peerloom.services.llm.hosted import CallPolicy, HttpService
from peerloom.services.secret import Secret


class AzureService(HttpService):
    """Deployments of Azure OpenAI.

    Args:
        model: the deployment's name.
        base_url: the resource's address; default `AZURE_OPENAI_ENDPOINT`.
        api_key: default `AZURE_OPENAI_API_KEY`.
        calls: how they are called.
        dialect: see `AzureDialect`.

    Raises:
        ConfigError: if there is no address, or an argument is impossible.
    """

    def __init__(
        self,
        *,
        model: str | None = None,
        base_url: str | Sequence[str] | None = None,
        api_key: Secret | str | None = None,
        calls: CallPolicy | None = None,
        **dialect: Any,
    ) -> None:
        super().__init__(
            AzureDialect(**dialect), base_url=base_url, model=model, api_key=api_key, calls=calls
        )


class AnthropicService(HttpService):
    """Anthropic's models.

    Args:
        model: its name; default the first that is listed.
        base_url: without `/v1`; default `ANTHROPIC_BASE_URL`, else Anthropic itself.
        api_key: default `ANTHROPIC_API_KEY`.
        calls: how they are called.
        dialect: see `AnthropicDialect`.

    Raises:
        ConfigError: for an impossible argument.
    """

    def __init__(
        self,
        *,
        model: str | None = None,
        base_url: str | Sequence[str] | None = None,
        api_key: Secret | str | None = None,
        calls: CallPolicy | None = None,
        **dialect: Any,
    ) -> None:
        super().__init__(
            AnthropicDialect(**dialect), base_url=base_url, model=model, api_key=api_key, calls=calls
        )


class GeminiService(HttpService):
    """Google's models.

    Args:
        model: its name; default the first that is listed.
        base_url: without `/v1beta`; default `GOOGLE_GEMINI_BASE_URL`, else Google itself.
        api_key: default `GEMINI_API_KEY`.
        calls: how they are called.
        dialect: see `GeminiDialect`.

    Raises:
        ConfigError: for an impossible argument.
    """

    def __init__(
        self,
        *,
        model: str | None = None,
        base_url: str | Sequence[str] | None = None,
        api_key: Secret | str | None = None,
        calls: CallPolicy | None = None,
        **dialect: Any,
    ) -> None:
        super().__init__(
            GeminiDialect(**dialect), base_url=base_url, model=model, api_key=api_key, calls=calls
        )
