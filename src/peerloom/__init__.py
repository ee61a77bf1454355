"""Generate synthetic training data with many LLM agents, peer to peer.

    import peerloom

    result = peerloom.run("coral", source="questions.jsonl", limit=20)
    for row in result:
        print(row["messages"])

The public API is the names of this module. Modules that are slow to import are loaded when a name of theirs
is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from peerloom.errors import (
    AnswerError,
    CodecError,
    ConfigError,
    ContentFiltered,
    ContextExceeded,
    EngineError,
    LLMDenied,
    LLMError,
    LLMRejected,
    LLMUnavailable,
    ModelError,
    OutputTruncated,
    PeerloomError,
    PromptError,
    RowError,
    RunDirError,
    ServiceError,
    SourceError,
    TaskError,
    UsageError,
    WorkflowError,
)
from peerloom.events import (
    AgentTotals,
    Hooks,
    MemberJoined,
    MemberLost,
    Notice,
    Progress,
    RunFinished,
    RunStarted,
    Starting,
    ViewChanged,
)
from peerloom.task import End, Extras, Task, TaskId, Turn, Usage
from peerloom.workflow import END, Graph, Loop, Sequence, When, Workflow

if TYPE_CHECKING:
    __version__: str

    from peerloom.agents.base import Agent, Services
    from peerloom.agents.function import FunctionAgent
    from peerloom.agents.llm import LLMAgent
    from peerloom.agents.prompts import Prompt
    from peerloom.api import RunResult, arun, run
    from peerloom.recipes import Recipe
    from peerloom.runtime.program import Program
    from peerloom.services.fleets.service import FleetService
    from peerloom.services.llm.base import LLM, ChatReply, ChatRequest, EmbedReply, EmbedRequest
    from peerloom.services.llm.client.hedge import Hedge
    from peerloom.services.llm.client.router import ServiceOptions, ServiceRouter
    from peerloom.services.llm.client.routing import Routing
    from peerloom.services.llm.client.service import ClientSpec, LLMService
    from peerloom.services.llm.hosted.openai import OpenAIService
    from peerloom.services.llm.hosted.providers import AnthropicService, AzureService, GeminiService
    from peerloom.services.llm.hosted.service import CallPolicy
    from peerloom.services.llm.limits.service_quota import Limits
    from peerloom.services.llm.llamacpp.service import LlamaCppService
    from peerloom.services.llm.retry import Retry
    from peerloom.services.llm.scripted import ScriptedService
    from peerloom.services.llm.simulated.service import SimulatedService
    from peerloom.services.secret import Secret
    from peerloom.sink.read import read_rows
    from peerloom.source.base import Source, SourceRow
    from peerloom.source.formats.jsonl import JsonlSource
    from peerloom.source.memory import RowsSource
    from peerloom.source.open import open_source

_LAZY_NAMES = {
    "peerloom.agents.base": ("Agent", "Services"),
    "peerloom.agents.function": ("FunctionAgent",),
    "peerloom.agents.llm": ("LLMAgent",),
    "peerloom.agents.prompts": ("Prompt",),
    "peerloom.api": ("RunResult", "arun", "run"),
    "peerloom.recipes": ("Recipe",),
    "peerloom.runtime.program": ("Program",),
    "peerloom.services.fleets.service": ("FleetService",),
    "peerloom.services.llm.base": ("LLM", "ChatReply", "ChatRequest", "EmbedReply", "EmbedRequest"),
    "peerloom.services.llm.client.hedge": ("Hedge",),
    "peerloom.services.llm.hosted.service": ("CallPolicy",),
    "peerloom.services.llm.limits.service_quota": ("Limits",),
    "peerloom.services.llm.client.router": ("ServiceRouter", "ServiceOptions"),
    "peerloom.services.llm.llamacpp.service": ("LlamaCppService",),
    "peerloom.services.llm.hosted.openai": ("OpenAIService",),
    "peerloom.services.llm.hosted.providers": ("AnthropicService", "AzureService", "GeminiService"),
    "peerloom.services.llm.retry": ("Retry",),
    "peerloom.services.llm.client.routing": ("Routing",),
    "peerloom.services.llm.scripted": ("ScriptedService",),
    "peerloom.services.llm.client.service": ("ClientSpec", "LLMService"),
    "peerloom.services.llm.simulated.service": ("SimulatedService",),
    "peerloom.services.secret": ("Secret",),
    "peerloom.sink.read": ("read_rows",),
    "peerloom.source.base": ("Source", "SourceRow"),
    "peerloom.source.formats.jsonl": ("JsonlSource",),
    "peerloom.source.memory": ("RowsSource",),
    "peerloom.source.open": ("open_source",),
}
_MODULE_OF = {name: module for module, names in _LAZY_NAMES.items() for name in names}

__all__ = [
    "END",
    "LLM",
    "Agent",
    "AgentTotals",
    "AnswerError",
    "AnthropicService",
    "AzureService",
    "CallPolicy",
    "ChatReply",
    "ChatRequest",
    "ClientSpec",
    "CodecError",
    "ConfigError",
    "ContentFiltered",
    "ContextExceeded",
    "EmbedReply",
    "EmbedRequest",
    "End",
    "EngineError",
    "Extras",
    "FleetService",
    "FunctionAgent",
    "GeminiService",
    "Graph",
    "Hedge",
    "Hooks",
    "JsonlSource",
    "LLMAgent",
    "LLMDenied",
    "LLMError",
    "LLMRejected",
    "LLMService",
    "LLMUnavailable",
    "Limits",
    "LlamaCppService",
    "Loop",
    "MemberJoined",
    "MemberLost",
    "ModelError",
    "Notice",
    "OpenAIService",
    "OutputTruncated",
    "PeerloomError",
    "Program",
    "Progress",
    "Prompt",
    "PromptError",
    "Recipe",
    "Retry",
    "Routing",
    "RowError",
    "RowsSource",
    "RunDirError",
    "RunFinished",
    "RunResult",
    "RunStarted",
    "ScriptedService",
    "Secret",
    "Sequence",
    "ServiceError",
    "ServiceOptions",
    "ServiceRouter",
    "Services",
    "SimulatedService",
    "Source",
    "SourceError",
    "SourceRow",
    "Starting",
    "Task",
    "TaskError",
    "TaskId",
    "Turn",
    "Usage",
    "UsageError",
    "ViewChanged",
    "When",
    "Workflow",
    "WorkflowError",
    "__version__",
    "arun",
    "open_source",
    "read_rows",
    "run",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("peerloom")
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'peerloom' has no attribute {name!r}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
