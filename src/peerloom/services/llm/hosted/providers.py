"""Use the known providers.

    AnthropicService(model="claude-sonnet-4-5", calls=CallPolicy(timeout=120))

Further arguments are passed to the dialect.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from peerloom.services.llm.hosted.service import CallPolicy, HttpService
from peerloom.services.llm.providers.anthropic import AnthropicDialect
from peerloom.services.llm.providers.azure import AzureDialect
from peerloom.services.llm.providers.dialect import Dialect
from peerloom.services.llm.providers.gemini import GeminiDialect
from peerloom.services.llm.providers.openai import OpenAIDialect
from peerloom.services.secret import Secret


class ProviderService(HttpService):
    """A provider's models.

    Args:
        model: the model's name; default the first that the server lists.
        base_url: the URL of each replica; default the provider's environment variable, else its public URL.
        api_key: the key; default the provider's environment variable.
        calls: the timeouts and retries of calls.
        options: the options of the dialect.

    Raises:
        ConfigError: if there is no URL, or an argument is invalid.
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


class OpenAIService(ProviderService):
    """Servers that implement OpenAI's chat completions; `base_url` includes `/v1`.

    Reads `OPENAI_BASE_URL` and `OPENAI_API_KEY`; further options are those of `OpenAIDialect`.
    """

    dialect = OpenAIDialect


class AzureService(ProviderService):
    """Deployments of Azure OpenAI: `model` is the deployment's name, `base_url` the resource's URL.

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
