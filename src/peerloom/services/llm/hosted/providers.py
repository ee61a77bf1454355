"""Providers with interfaces of their own, as services: each is its dialect behind HTTP.

    AnthropicService(model="claude-sonnet-4-5", calls=CallPolicy(timeout=120))

Further arguments are the dialect's.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from peerloom.services.llm.hosted.service import CallPolicy, HttpService
from peerloom.services.llm.providers.anthropic import AnthropicDialect
from peerloom.services.llm.providers.azure import AzureDialect
from peerloom.services.llm.providers.dialect import Dialect
from peerloom.services.llm.providers.gemini import GeminiDialect
from peerloom.services.secret import Secret


class ProviderService(HttpService):
    """A provider's models.

    Args:
        model: its name; default the first that is listed.
        base_url: default what the provider's variable holds, else its own address.
        api_key: default what the provider's variable holds.
        calls: how they are called.
        options: those of the dialect.

    Raises:
        ConfigError: if there is no address, or an argument is impossible.
    """

    dialect: ClassVar[Callable[..., Dialect]]

    def __init__(
        self,
        *,
        model: str | None = None,
        base_url: str | Sequence[str] | None = None,
        api_key: Secret | str | None = None,
        calls: CallPolicy | None = None,
        **options: Any,
    ) -> None:
        dialect = type(self).dialect(**options)
        super().__init__(dialect, base_url=base_url, model=model, api_key=api_key, calls=calls)


class AzureService(ProviderService):
    """Deployments of Azure OpenAI: `model` is the deployment's name, `base_url` the resource's address.

    Reads `AZURE_OPENAI_ENDPOINT` and `AZURE_OPENAI_API_KEY`; further options are those of `AzureDialect`.
    """

    dialect = AzureDialect


class AnthropicService(ProviderService):
    """Anthropic's models; `base_url` is without `/v1`.

    Reads `ANTHROPIC_BASE_URL` and `ANTHROPIC_API_KEY`; further options are those of `AnthropicDialect`.
    """

    dialect = AnthropicDialect


class GeminiService(ProviderService):
    """Google's models; `base_url` is without `/v1beta`.

    Reads `GOOGLE_GEMINI_BASE_URL` and `GEMINI_API_KEY`; further options are those of `GeminiDialect`.
    """

    dialect = GeminiDialect
