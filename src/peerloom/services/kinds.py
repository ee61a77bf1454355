"""Find the kinds of services besides language models: built in, installed, or at an import path.

A kind is an options class with a method `service`, such as a subclass of `leased.service.StatefulOptions`.
An installed package declares it as an entry point in the group `peerloom.services`.
"""

from dataclasses import replace

from peerloom.errors import ConfigError
from peerloom.lookup.plugins import Plugins
from peerloom.options import Options

SERVICES = Plugins("services.kind", "peerloom.services", "peerloom.services.builtin", "SERVICE")


def find_service(kind: str, key: str = SERVICES.key) -> type[Options]:
    """Return the options class of a kind of service, which `key` of the configuration names.

    Raises:
        ConfigError: if there is none, or it is not an options class with a method `service`.
    """
    found = replace(SERVICES, key=key).find(kind)
    if isinstance(found, type) and issubclass(found, Options) and callable(getattr(found, "service", None)):
        return found
    raise ConfigError(
        f"{key}={kind} is no kind of service: it must be an options class with a method `service`"
    )
