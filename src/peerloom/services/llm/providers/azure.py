"""Azure OpenAI: OpenAI's bodies at a path for each deployment, with an API version and its own key header.

A deployment is what `model` names. The list of models is not of deployments, so whether there is one is found
out by asking it. Content filters answer 400 for a prompt and `content_filter` for a reply, as OpenAI's do.
"""

from dataclasses import dataclass
from typing import Annotated, Any

from peerloom.options import SAME
from peerloom.services.llm.base import ChatRequest, EmbedRequest
from peerloom.services.llm.providers.dialect import Post, Provider
from peerloom.services.llm.providers.openai import OpenAIDialect, ids_in
from peerloom.services.secret import Secret

AZURE = Provider("", "AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_API_KEY", dropped="/openai")


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureDialect(OpenAIDialect):
    """How Azure OpenAI is asked."""

    api_version: Annotated[str, SAME] = "2024-10-21"
    """The interface's version, which goes along with every request."""
    limit_field: str = "max_completion_tokens"

    @property
    def provider(self) -> Provider:
        """Each resource has an address of its own."""
        return AZURE

    @property
    def models_path(self) -> str:
        """The models that could be deployed."""
        return f"/openai/models?api-version={self.api_version}"

    def listed(self, payload: Any) -> None:
        """It does not tell what is deployed."""
        ids_in(payload)

    def probe(self, model: str) -> Post:
        """A chat without messages."""
        return self._at(model, Post("/chat/completions", b"{}", {}))

    def auth(self, key: Secret) -> dict[str, str]:
        """The key in a header of its own."""
        return {"api-key": key.reveal()}

    def chat(self, request: ChatRequest, model: str) -> Post:
        """A chat completion of a deployment."""
        return self._at(model, OpenAIDialect.chat(self, request, model))

    def embed(self, request: EmbedRequest, model: str) -> Post:
        """The vectors of some texts."""
        return self._at(model, OpenAIDialect.embed(self, request, model))

    def _at(self, deployment: str, post: Post) -> Post:
        path = f"/openai/deployments/{deployment}{post.path}?api-version={self.api_version}"
        return post._replace(path=path)


DIALECT = AzureDialect
