"""Render prompt templates: Jinja in a sandbox, with errors that name the template, the line and the field.

A `Prompt` is compiled once per process; its pickled form has only the text. A template uses the variables
`input` (the row), `task`, `turns` (the history) and `last` (the newest turn). An unknown variable is an error
when the prompt is created, and a missing field of a row when it is rendered. On an object, `row.items` is the
field of that name, never a method; `row|items` are its pairs. An expression that would be rendered as `None`
or as an object's address is an error.
"""

import difflib
import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from jinja2 import (
    Environment,
    StrictUndefined,
    Template,
    TemplateSyntaxError,
    UndefinedError,
    meta,
    nodes,
    pass_context,
)
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from peerloom.errors import ConfigError, PromptError
from peerloom.lookup.small_file import read_small_file
from peerloom.task import Task, Turn

VARIABLES = ("input", "task", "turns", "last")
_FUNCTIONS = ("range", "dict", "namespace", "cycler", "joiner")  # built into Jinja


class Prompt:
    """A prompt template.

    Args:
        text: the template.
        name: the template's name in errors; the file name of a template from a file.

    Raises:
        ConfigError: if the text is not a valid template, or uses an unknown variable.
    """

    def __init__(self, text: str, name: str = "<prompt>") -> None:
        self.text = text
        self.name = name
        self._compile()

    @classmethod
    def load(cls, path: Path) -> "Prompt":
        """Read a template from a file."""
        try:
            text = read_small_file(path).decode().replace("\r\n", "\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"prompt {path}: cannot be read as UTF-8 text: {error}") from error
        return cls(text, path.name)

    def render(self, task: Task) -> str:
        """Render the prompt for one task, without surrounding whitespace.

        Raises:
            PromptError: if an expression fails; the text names the template, the line and the problem.
        """
        if self._constant:
            return self.text.strip()
        variables = {name: getattr(task, name) for name in self._uses if name != "task"}
        try:
            text = self._template.render(variables, task=task)
            if _SUSPECT.search(text) is not None:  # possibly the text of a null expression or a method
                self._strict.render(variables, task=task)
            text.encode()  # fails on lone surrogates, which a template can produce
            return text.strip()
        except Exception as error:  # an expression in a template can raise any exception
            where = f"{self.name}:{_line(error.__traceback__, self.name)}"
            shown = error.message if isinstance(error, UndefinedError) else f"{type(error).__name__}: {error}"
            raise PromptError(f"{where}: {shown}") from error

    def _compile(self) -> None:
        try:
            tree = _environment.parse(self.text, self.name, self.name)
            self._template = self._compiled(_environment)
        except TemplateSyntaxError as error:
            raise ConfigError(f"{self.name}:{error.lineno}: {error.message}") from error
        except Exception as error:  # from a constant expression, which is evaluated here
            raise ConfigError(f"{self.name}: {type(error).__name__}: {error}") from error
        names = meta.find_undeclared_variables(tree)
        for unknown in sorted(names.difference(VARIABLES, _FUNCTIONS)):
            raise ConfigError(f"{self.name}: {_absent(unknown, VARIABLES, 'the template variables')}")
        self._uses = tuple(name for name in VARIABLES if name in names)
        self._constant = "{" not in self.text  # most system messages need no rendering

    def _compiled(self, environment: Environment) -> Template:
        tree = environment.parse(self.text, self.name, self.name)
        if environment is _strict_environment:
            for joined in tree.find_all(nodes.Concat):  # a ~ b
                joined.nodes = [
                    nodes.Filter(node, "written", [], [], None, None, lineno=node.lineno)
                    for node in joined.nodes
                ]
        code = environment.compile(tree, self.name, self.name)
        # The plain dict, since the result of make_globals() is copied key by key at every rendering.
        return Template.from_code(environment, code, _globals)

    @cached_property
    def _strict(self) -> Template:
        """The template that checks each expression, at the cost of a function call for each."""
        return self._compiled(_strict_environment)

    def __getattr__(self, name: str) -> Any:
        # Reached only in an unpickled prompt, which is not compiled yet.
        if name not in ("_constant", "_template", "_uses"):
            raise AttributeError(name)
        self._compile()
        return self.__dict__[name]

    def __getstate__(self) -> dict[str, str]:
        return {"text": self.text, "name": self.name}

    def __repr__(self) -> str:
        return f"Prompt({self.text!r}, {self.name!r})"


def as_prompt(template: "str | Path | Prompt", name: str) -> Prompt:
    """Return a prompt from the text of a template, or the `Path` of its file."""
    if isinstance(template, Prompt):
        return template
    return Prompt.load(template) if isinstance(template, Path) else Prompt(template, f"<{name}>")


class _Missing(StrictUndefined):
    """A missing field. Any use of it raises an error that lists the present fields."""

    @property
    def _undefined_message(self) -> str:
        name, owner = str(self._undefined_name), self._undefined_obj
        if isinstance(owner, dict):
            absent = _absent(name, map(str, cast("dict[Any, Any]", owner)), "the fields")
            return f"{absent}; for an object's pairs write |items" if name in _PAIRS else absent
        return f"{'None' if owner is None else type(owner).__name__} has no {name!r}"


class _Environment(ImmutableSandboxedEnvironment):
    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(argument, str):
            return self.getattr(obj, argument)
        return super().getitem(obj, argument)

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, dict):
            fields = cast("dict[str, Any]", obj)
            return fields[attribute] if attribute in fields else self.undefined(obj=obj, name=attribute)
        value = cast("object", obj)
        if isinstance(value, int | float):
            return self.undefined(obj=obj, name=attribute)
        if attribute in _KNOWN_SAFE.get(type(value), ()):
            return getattr(value, attribute)
        return super().getattr(obj, attribute)


_KNOWN_SAFE: dict[type, frozenset[str]] = {
    Turn: frozenset((*Turn.__struct_fields__, "text")),
    LoopContext: frozenset(("index", "index0", "first", "last", "length")),
}
"""The attributes most used in templates, all plain values, exempt from the sandbox's expensive checks."""

_PAIRS = ("items", "keys", "values")


def _written(value: Any) -> Any:
    """Return the value of an expression if it is data."""
    if value is None:
        raise UndefinedError("an expression is null: test for it, or write |default('...', true)")
    if isinstance(value, dict):
        value = cast("dict[Any, Any]", value)
        _check_inside(value.values())
    elif isinstance(value, list | tuple):
        _check_inside(cast("list[Any]", value))
    elif not isinstance(value, str) and (_ADDRESS in str(value) or callable(value)):
        hint = "call it" if callable(value) else "write a field of it, or |list"
        raise UndefinedError(f"an expression is a {type(value).__name__}, not data: {hint}")
    return cast("Any", value)


def _check_inside(values: Iterable[Any]) -> None:
    for value in values:
        if value is not None:
            _written(value)


def _join(context: Any, value: Any, d: str = "", attribute: Any = None) -> Any:
    """Check that all items are data, and join them as Jinja's `join` does."""
    items = value if attribute is None else _map(context, value, attribute=attribute)
    return _plain_join(context.eval_ctx, [_written(item) for item in items], d)


_ADDRESS = " at 0x"
_SUSPECT = re.compile(f"None|Undefined|<class |{_ADDRESS}")
_environment = _Environment(undefined=_Missing, trim_blocks=True, lstrip_blocks=True)
_strict_environment = _environment.overlay(finalize=_written)
_filters: dict[str, Any] = cast("Any", _environment).filters
_map, _plain_join = _filters["map"], _filters["join"]
_strict_environment.filters = {**_filters, "written": _written, "join": pass_context(_join)}
_globals: dict[str, Any] = cast("Any", _environment).globals


def _absent(name: str, present: Iterable[str], kind: str) -> str:
    known = list(present)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"{kind} are: {', '.join(known) or 'none'}"
    return f"there is no {name!r}; {hint}"


def _line(traceback: TracebackType | None, name: str) -> int:
    """Return the template line of an error; Jinja maps the frames of a template to its lines."""
    line = 0
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == name:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return line
