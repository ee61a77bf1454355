"""Plan a run: check its configuration, program, source, model and settings without starting anything."""

import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from typing import Any, cast

from peerloom import recipes
from peerloom.api.given import Rows, check_first_rows, given_source, read_given
from peerloom.config import Config, check, compose, to_yaml
from peerloom.config.build import make_router, make_services, make_settings, make_source, resolve
from peerloom.config.resume import resume_values
from peerloom.config.secrets import refuse_secrets
from peerloom.errors import ConfigError, SourceError, UsageError, WorkflowError
from peerloom.runtime.driver.session import Session
from peerloom.runtime.program import Program
from peerloom.runtime.services import RunServices
from peerloom.runtime.settings import RunSettings
from peerloom.runtime.versions.version import version_of
from peerloom.services.llm.client.service import LLMService
from peerloom.services.llm.scripted import Script, ScriptedService
from peerloom.sink.rundir.directory import RunDir
from peerloom.sink.rundir.state import Fingerprint
from peerloom.sink.rundir.versions import ProgramVersion
from peerloom.source.base import Source
from peerloom.source.combined import PartsSource
from peerloom.source.fingerprint import fingerprint
from peerloom.source.stream.recording import StreamSource
from peerloom.values import escaped
from peerloom.workflow import check_agents

MAX_MESSAGE = 4_000

Model = str | LLMService | Script
"""A model: the name of an `llm` group, a service object, or a script for `ScriptedService`."""


@dataclass(frozen=True)
class Plan:
    """Everything that a run needs, checked but not started. `name` is used in the default run directory."""

    name: str
    config: Config
    program: Program
    source: Source
    services: RunServices
    settings: RunSettings

    @property
    def yaml(self) -> str:
        """The text of `run.yaml`."""
        source = ", ".join(f"{key}: {value}" for key, value in self.source.describe().items())
        return to_yaml(self.config, f"Peerloom {version('peerloom')}. Source: {source}")

    @cached_property
    def version(self) -> ProgramVersion:
        """The version of the program."""
        return version_of(self.program)

    def count_rows(self) -> int | None:
        """Return the number of rows of the source, or None if it is a stream. May read the whole input.

        Raises:
            SourceError: if the source has no row, or cannot be read any more.
        """
        if isinstance(self.source, StreamSource):
            return None
        if rows := self.source.total():
            return rows
        raise SourceError(f"the source has no rows: {self.source.describe()}")

    def check_rows(self) -> None:
        """Check the first row of each file of the source.

        Raises:
            SourceError: if it is no row, or not one that the program can work on.
        """
        with _short_errors():
            check_first_rows(self.source, self.program)

    def session(self, run_dir: RunDir, **options: bool) -> Session:
        """Return the next session of a run directory, with options of `Session`. Reads samples of the input.

        Raises:
            RunDirError: if the directory holds another run.
            SourceError: if the input cannot be read any more.
            ConfigError: if the source's description holds a secret.
        """
        return Session(run_dir, self.fingerprint(), self.version, **options)

    def fingerprint(self) -> Fingerprint:
        """Return the values that identify the run when it is resumed. Reads samples of the input.

        Raises:
            SourceError: if the input cannot be read any more.
            ConfigError: if the source's description holds a secret.
        """
        config, source = resume_values(self.config), fingerprint(self.source)
        if "limit" in source:
            config.grows["limit"] = source.pop("limit")
        same = {**config.same, **{f"source.{key}": value for key, value in source.items()}}
        if self.config.llm is None:
            same["llm"] = type(self.services.llm).__name__
        refuse_secrets(same)
        return Fingerprint(same, config.grows)


def make_plan(
    recipe: str | None = None,
    overrides: Sequence[str] = (),
    *,
    program: Program | None = None,
    source: Rows | None = None,
    llm: Model | None = None,
    values: Mapping[str, Any] | None = None,
    config_dir: str | os.PathLike[str] | None = None,
) -> Plan:
    """Make the plan of a run: check everything that can be checked without starting anything.

    Args:
        recipe: a recipe's name, import path, or run file; None if a program is given.
        overrides: `key=value`, as on the command line.
        program: a workflow and agents instead of a recipe's.
        source: input instead of `source.path`.
        llm: a model instead of the `llm` group.
        values: configuration by dotted key; takes precedence over `overrides`.
        config_dir: a directory with the user's own groups, see `peerloom.config.composition.compose`.

    Raises:
        UsageError: naming the error and its place; the message is cut after `MAX_MESSAGE` characters.
    """
    with _short_errors():
        given = dict(values or {})
        rows = read_given(source, given)
        service = _service(llm, given)
        composed = compose(recipe, overrides, values=given, config_dir=config_dir)
        found_recipe = _recipe(composed, program)
        config = check(composed, found_recipe.params if found_recipe else None)
        config = resolve(config, found_recipe.sample if found_recipe and rows is None else None)
        if found_recipe is not None:
            options = config.plain()["recipe"]
            del options["name"]
            program = found_recipe.build(options)
        program = _checked(cast("Program", program))
        if config.engine == "ray" and isinstance(llm, list | tuple):
            raise ConfigError("a list of replies is used up in order, by one process: it needs engine=local")
        settings = make_settings(config, program.workflow.roles)
        opened = make_source(config) if rows is None else given_source(rows, config)
        if settings.license is None and isinstance(opened, PartsSource):
            settings = replace(settings, license=opened.license)
        return Plan(
            name=found_recipe.name if found_recipe else "workflow",
            config=config,
            program=program,
            source=opened,
            services=RunServices(service or make_router(config), make_services(config)),
            settings=settings,
        )


@contextmanager
def _short_errors() -> Generator[None]:
    """Escape and shorten the messages of the user's errors."""
    try:
        yield
    except UsageError as error:
        text = escaped(str(error))
        if text == str(error) and len(text) <= MAX_MESSAGE:
            raise
        raise type(error)(f"{text[:MAX_MESSAGE]}{'...' * (len(text) > MAX_MESSAGE)}") from None


def _recipe(composed: Mapping[str, Any], program: Program | None) -> "recipes.Recipe[Any] | None":
    section: Any = composed.get("recipe", {})
    name: Any = cast("dict[str, Any]", section).get("name") if isinstance(section, Mapping) else section
    if not isinstance(section, Mapping) or not isinstance(name, str | None):
        raise ConfigError(f"recipe.name is {name!r}: it must be the name of a recipe, in quotes if need be")
    if program is not None:
        if name is not None:
            raise ConfigError(f"recipe {name!r} and workflow= were both given: a run has one of them")
        return None
    if name is None:
        raise ConfigError(
            "no recipe is named: give one, or workflow= and agents= "
            "(the run.yaml of a workflow given in Python can only be repeated there; "
            "the same peerloom.run(..., run_dir=...) again goes on with its run)"
        )
    return recipes.find(name)


def _checked(program: Program) -> Program:
    check_agents(program.workflow, program.agents)
    for role, agent in program.agents.items():
        if not callable(getattr(agent, "act", None)):
            raise WorkflowError(
                f"agents[{role!r}] is no agent but {type(agent).__name__}: "
                "a function becomes one by FunctionAgent(function)"
            )
    return program


def _service(llm: Model | None, values: dict[str, Any]) -> LLMService | None:
    """Return a service given in Python; set a name as the choice of a group instead."""
    if isinstance(llm, str):
        values["llm"] = llm
    if llm is None or isinstance(llm, str):
        return None
    for key in values:
        if key.partition(".")[0] in ("llm", "llms"):
            raise ConfigError(f"{key} and a model object were both given: set the object up itself")
    values["llm"] = None
    return cast("LLMService", llm) if hasattr(llm, "start") else ScriptedService(cast("Script", llm))
