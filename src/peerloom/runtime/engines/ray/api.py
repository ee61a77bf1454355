"""Import Ray once, untyped.

Ray's own annotations are too incomplete for strict checks. Its driver prints a paragraph on stdout for each
worker that dies; these are suppressed, since a run reports deaths itself.
"""

import os
from typing import Any

os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "A worker died or was killed")

import ray as _ray
from ray.exceptions import AuthenticationError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

__all__ = [
    "AuthenticationError",
    "Handle",
    "NodeAffinitySchedulingStrategy",
    "RayError",
    "RayTaskError",
    "ray",
]

ray: Any = _ray

Handle = Any
"""An actor handle."""
