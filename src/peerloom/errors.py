"""Define every error that Peerloom raises, named by the boundary that was crossed.

A `UsageError` is the user's to correct, and nothing was started; a `TaskError` ends one task, and carries the
outcome and reason of its row. Extensions raise plain Python errors; the runtime classifies them in one place.
"""

from typing import Any, ClassVar, TypeVar, cast

AnyError = TypeVar("AnyError", bound=BaseException)


class PeerloomError(Exception):
    """Base of all errors raised on purpose."""


class UsageError(PeerloomError):
    """The user's input is invalid; raised before anything starts."""


class ConfigError(UsageError):
    """A configuration key, value or combination is wrong."""


class WorkflowError(UsageError):
    """A workflow is inconsistent, or names a role that no agent fills."""


class SourceError(UsageError):
    """Input that cannot be opened or listed at all (a bad row is a `RowError`)."""


class RunDirError(UsageError):
    """A run directory that is in use, damaged or not writable."""


class ModelError(UsageError):
    """Model weights that cannot be found, pulled or verified."""


class CodecError(PeerloomError):
    """Bytes that are not a task or message of a version this release reads."""


class EngineError(PeerloomError):
    """Processes could not be started or reached."""


class ServiceError(PeerloomError):
    """A service that the run depends on could not be started, or died."""


class TaskError(PeerloomError):
    """Base of the errors that end one task; its row takes over their `outcome` and `reason`."""

    outcome: ClassVar[str] = "failed"
    reason: ClassVar[str] = "error"


class RowError(TaskError):
    """The input row is malformed or lacks a field."""

    reason = "bad_row"


class PromptError(TaskError):
    """A prompt template failed on this task."""

    reason = "prompt"


class AnswerError(TaskError):
    """A reply did not parse as the requested answer, after every retry."""

    reason = "answer"


class CallError(TaskError):
    """A service other than a language model refused or failed a call."""

    reason = "service_call"


class LLMError(TaskError):
    """The language model service failed this call.

    Args:
        why: the message.
        usage: the `Usage` of the failed call, if it was answered.
    """

    reason = "llm"

    def __init__(self, why: str, *, usage: Any = None) -> None:
        super().__init__(why)
        self.usage = usage


class LLMUnavailable(LLMError):
    """The service was unreachable, overloaded or timed out, after every retry."""

    reason = "llm_unavailable"


class LLMRejected(LLMError):
    """The request was refused (HTTP 4xx); a retry cannot help."""

    reason = "llm_rejected"


class LLMDenied(LLMError):
    """The service refuses every request of this run because of its key, its quota or its model's name."""

    reason = "llm_denied"


class ContextExceeded(LLMError):
    """The prompt is longer than the model's context."""

    outcome = "truncated"
    reason = "context_exceeded"


class OutputTruncated(LLMError):
    """The reply was cut by the token limit (`finish_reason` = `length`)."""

    outcome = "truncated"
    reason = "max_tokens"


class ContentFiltered(LLMError):
    """The provider withheld the reply (`finish_reason` = `content_filter`)."""

    outcome = "filtered"
    reason = "content_filter"


def first_error(group: BaseExceptionGroup[AnyError]) -> AnyError:
    """Return the first error in nested groups; the others are its consequences."""
    error = group.exceptions[0]
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[AnyError]", error).exceptions[0]
    return error
