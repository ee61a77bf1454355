"""Select the engine of a run."""

from peerloom.runtime.engine import Engine
from peerloom.runtime.engines.local import LocalEngine
from peerloom.runtime.settings import RunSettings


def make_engine(settings: RunSettings) -> Engine:
    """Create the engine of `settings.engine`; Ray is imported only if it is needed."""
    if settings.engine == "local":
        return LocalEngine()
    from peerloom.runtime.engines.ray.engine import RayEngine  # noqa: PLC0415 - Ray is slow to import

    return RayEngine(settings)
