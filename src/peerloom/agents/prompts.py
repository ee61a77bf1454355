"""Prompt templates: Jinja in a sandbox, with errors that name the template, the line and the field.

A `Prompt` is compiled once per process: pickling one (agents travel to the peers) carries its text
only. A template sees `input` (the row), `task`, `turns` (the history) and `last` (the newest turn);
a name that is none of these is refused when the prompt is made, a field that a row lacks when it is
rendered. On an object, `row.items` is the field of that name, never a method; `row|items` are its pairs.
What would be written as `None` or as an object's address is refused.
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
from peerloom.task import Task, Turn

VARIABLES = ("input", "task", "turns", "last")
_FUNCTIONS = ("range", "dict", "namespace", "cycler", "joiner")  # Jinja's own


class Prompt:
    """One template.

    Args:
        text: the template itself.
        name: what errors call it; for a template from a file, its file name.

    Raises:
        ConfigError: if the text is no template, or uses a variable that there is not.
    """

    def __init__(self, text: str, name: str = "<prompt>") -> None:
        self.text = text
        self.name = name
        self._compile()

    @classmethod
    def load(cls, path: Path) -> "Prompt":
        """The template in a file, read now.

        Raises:
            ConfigError: if the file cannot be read, or see the constructor.
        """
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"prompt {path}: cannot be read as UTF-8 text: {error}") from error
        return cls(text, path.name)

    def render(self, task: Task) -> str:
        """The prompt for one task, without space around it.

        Raises:
            PromptError: with template, line and what was missing or went wrong.
        """
        if self._constant:
            return self.text.strip()
        variables = {name: getattr(task, name) for name in self._uses if name != "task"}
        try:
            text = self._template.render(variables, task=task)
            if _SUSPECT.search(text) is not None:  # perhaps an expression that is null, or a method
                self._strict.render(variables, task=task)
            text.encode()  # refuses lone surrogates, which a template can make
            return text.strip()
        except Exception as error:  # whatever an expression in the template raises
            where = f"{self.name}:{_line(error.__traceback__, self.name)}"
            what = error.message if isinstance(error, UndefinedError) else f"{type(error).__name__}: {error}"
            raise PromptError(f"{where}: {what}") from error

    def _compile(self) -> None:
        try:
            tree = _environment.parse(self.text, self.name, self.name)
            self._template = self._compiled(_environment)
        except TemplateSyntaxError as error:
            raise ConfigError(f"{self.name}:{error.lineno}: {error.message}") from error
        except Exception as error:  # of a constant expression, which is computed now
            raise ConfigError(f"{self.name}: {type(error).__name__}: {error}") from error
        names = meta.find_undeclared_variables(tree)
        for unknown in sorted(names.difference(VARIABLES, _FUNCTIONS)):
            raise ConfigError(f"{self.name}: {_absent(unknown, VARIABLES, 'the template variables')}")
        self._uses = tuple(name for name in VARIABLES if name in names)
        self._constant = "{" not in self.text  # most system messages: there is nothing to render

    def _compiled(self, environment: Environment) -> Template:
        tree = environment.parse(self.text, self.name, self.name)
        if environment is _strict_environment:
            for joined in tree.find_all(nodes.Concat):  # a ~ b
                joined.nodes = [_finalized(node) for node in joined.nodes]
        code = environment.compile(tree, self.name, self.name)
        # The plain dict: what make_globals() gives is copied key by key at every rendering.
        return Template.from_code(environment, code, _globals)

    @cached_property
    def _strict(self) -> Template:
        """The template that looks at all it writes; it takes a function call for each expression."""
        return self._compiled(_strict_environment)

    def __getattr__(self, name: str) -> Any:
        # Reached only where a pickled prompt has arrived without its compiled half.
        if name not in ("_constant", "_template", "_uses"):
            raise AttributeError(name)
        self._compile()
        return self.__dict__[name]

    def __getstate__(self) -> dict[str, str]:
        return {"text": self.text, "name": self.name}

    def __repr__(self) -> str:
        return f"Prompt({self.text!r}, {self.name!r})"


def as_prompt(template: "str | Path | Prompt", name: str) -> Prompt:
    """A string is the template itself, a `Path` the file it is in.

    Raises:
        ConfigError: see `Prompt`.
    """
    if isinstance(template, Prompt):
        return template
    return Prompt.load(template) if isinstance(template, Path) else Prompt(template, f"<{name}>")


class _Missing(StrictUndefined):
    """An absent field: any use of it raises, and says which fields there are."""

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
"""What templates use most, known to be mere values: the sandbox's checks cost more than all else of it."""

_PAIRS = ("items", "keys", "values")


def _written(value: Any) -> Any:
    """Return the value of an expression, unless it is null, which would be written as None, or no data.

    Raises:
        UndefinedError: if it is; also if a list or object holds a field that a row lacks.
    """
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


def _finalized(node: nodes.Expr) -> nodes.Expr:
    return nodes.Filter(node, "written", [], [], None, None, lineno=node.lineno)


def _join(context: Any, value: Any, d: str = "", attribute: Any = None) -> Any:
    """Jinja's `join`, of items that are all data."""
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


def _absent(name: str, present: Iterable[str], what: str) -> str:
    known = list(present)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"{what} are: {', '.join(known) or 'none'}"
    return f"there is no {name!r}; {hint}"


def _line(traceback: TracebackType | None, name: str) -> int:
    """The template line where an error came from: Jinja maps frames of a template to its lines."""
    line = 0
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == name:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return line
