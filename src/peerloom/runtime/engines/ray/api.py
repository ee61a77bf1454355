"""Ray as this package uses it: imported once, and untyped.

Ray's own annotations are too partial to be checked against strictly. And its driver prints a paragraph
on stdout for every worker that dies; a run tells of that itself, so those are skipped.
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
