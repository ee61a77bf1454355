"""Ray as the strict type checker sees it: its own annotations are too partial to be checked against."""

from typing import Any

import ray as _ray

ray: Any = _ray

Handle = Any
"""An actor handle."""
