"""Encode and decode Azure OpenAI's API: OpenAI's bodies, a path for each deployment, another key header.

`model` is the name of a deployment. The list of models does not include deployments, so the preflight check
sends a request to the deployment. A filtered prompt gives status 400, and a filtered reply the finish reason
`content_filter`, as with OpenAI.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from peerloom.options import SAME
from peerloom.services.llm.base import ChatRequest, EmbedRequest
from peerloom.services.llm.providers.dialect import Post, Provider
from peerloom.services.llm.providers.openai import OpenAIDialect, ids_in
from peerloom.services.secret import Secret

AZURE = Provider("", "AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_API_KEY", dropped="/openai")


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureDialect(OpenAIDialect):
    """The dialect of Azure OpenAI."""

    provider: ClassVar[Provider] = AZURE

    api_version: Annotated[str, SAME] = "2024-10-21"
    """The API version, sent with every request."""
    limit_field: str = "max_completion_tokens"

    @property
    def models_path(self) -> str:
        """The path of the list of models that can be deployed."""
        return f"/openai/models?api-version={self.api_version}"

    def listed(self, payload: Any) -> None:
        """Check the list, and return None: it does not show which models are deployed."""
        ids_in(payload)

    def probe(self, model: str) -> Post:
        """Return a chat request without messages."""
        return self._at(model, Post("/chat/completions", b"{}", {}))

    def auth(self, key: Secret) -> dict[str, str]:
        """Return the `api-key` header."""
        return {"api-key": key.reveal()}

    def chat(self, request: ChatRequest, model: str) -> Post:
        """Return the chat completion request of a deployment."""
        return self._at(model, OpenAIDialect.chat(self, request, model))

    def embed(self, request: EmbedRequest, model: str) -> Post:
        """Return the embedding request of a deployment."""
        return self._at(model, OpenAIDialect.embed(self, request, model))

    def _at(self, deployment: str, post: Post) -> Post:
        path = f"/openai/deployments/{deployment}{post.path}?api-version={self.api_version}"
        return post._replace(path=path)


DIALECT = AzureDialect
