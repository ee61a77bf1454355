"""Typed configuration: composed by OmegaConf, checked by pydantic.

`compose` gathers what the user said into one dictionary, `check` makes it a frozen `Config` or says
what is wrong with it, and `build` turns that into the source, model service and settings of a run.
"""

from peerloom.config.composition.compose import compose
from peerloom.config.load import check, to_yaml
from peerloom.config.schema import Config

__all__ = ["Config", "check", "compose", "to_yaml"]
