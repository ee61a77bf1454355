"""Compose and check the configuration of a run, with OmegaConf and pydantic.

`compose` merges files, overrides and values into one dictionary, `check` converts it to a frozen `Config` or
reports every error in it, and `build` creates the source, model service and settings of a run.
"""

from peerloom.config.composition.compose import compose
from peerloom.config.load import check, to_yaml
from peerloom.config.schema import Config

__all__ = ["Config", "check", "compose", "to_yaml"]
