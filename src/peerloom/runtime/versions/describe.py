"""Describe Python objects as text that is the same in every process.

Functions and classes of the user are described by their source, and by the values and functions that they
use, so a change anywhere in them changes the text. Peerloom, Python's library, and installed packages are
known by name. Anything that cannot be described is named in `uncovered`.
"""

import copyreg
import functools
import hashlib
import re
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping, Set
from enum import Enum
from pathlib import PurePath
from random import Random
from types import BuiltinFunctionType, FunctionType, MethodType, MethodWrapperType, ModuleType
from typing import Any, cast, get_args

import orjson

from peerloom.agents.prompts import Prompt
from peerloom.runtime.versions.source_code import (
    bytecode,
    changed_paths,
    find_node,
    global_paths,
    has_literal_defaults,
    normal_source,
)
from peerloom.runtime.versions.texts import below, listed, shortened
from peerloom.services.secret import MASK, mask, masked_literals, names_secret

MAX_VALUES = 200_000
MAX_DEPTH = 100

_INSTALLED = tuple(sysconfig.get_paths()[name] for name in ("purelib", "platlib"))
_BUILTINS = (BuiltinFunctionType, MethodWrapperType, type(str.join), type(str.__len__))
_NEW: tuple[Any, ...] = tuple(getattr(copyreg, name) for name in ("__newobj__", "__newobj_ex__"))
_CONSTRUCTORS = ("__init__", "__new__", "__post_init__", "__setstate__")
_SKIPPED = ("_abc_impl", "_fields", "_field_defaults")
_DESCRIPTORS = ("member_descriptor", "getset_descriptor", "wrapper_descriptor", "_tuplegetter")
_ADDRESS = " at 0x"


class Describer:
    """Describes values, and in `parts` the functions and classes that they use.

    Args:
        own: the top-level names of installed packages that belong to the user.
        changed: places whose values are changed by functions, which are state and no part of the program;
            more are added when functions are described.

    Attributes:
        parts: the text of each function and class by its label.
        prompts: the templates of each part that `describe` has added.
        uncovered: the places that cannot be described, and why.
        packages: the installed packages that are known by name only.
    """

    def __init__(self, own: Set[str], changed: set[Any]) -> None:
        self.parts: dict[str, str] = {}
        self.prompts: dict[str, list[str]] = {}
        self.uncovered: dict[str, None] = {}
        self.packages: set[str] = set()
        self._own = own
        self._changed = changed
        self._labels: dict[int, str] = {}
        self._queue: list[tuple[str, Any]] = []  # of functions and classes to be described
        self._kept: list[object] = []  # so that no id is used twice
        self._open: set[int] = set()
        self._left = MAX_VALUES
        self._where = self._described = ""

    def describe(self, label: str, value: object) -> None:
        """Add a part with the text of a value."""
        self.parts[label] = ""  # its place is before the functions that it uses
        self._where = self._described = label
        self.parts[label] = masked_literals(mask(self._text(value)))
        while self._queue:
            self._where, found = self._queue.pop(0)
            lines = self._class(found) if isinstance(found, type) else self._function(found)
            try:
                text = shortened("\n".join(lines))
            except Exception as error:  # of code of a class
                text = self._uncover("", f"{type(error).__name__}")
            self.parts[self._where] = masked_literals(mask(text))

    def _text(self, value: object, name: str = "") -> str:
        """Return the text of a value. It never raises, even if methods of the value do."""
        if id(value) in self._open:
            return "(the same again)"
        self._left -= 1
        if self._left < 0 or len(self._open) > MAX_DEPTH:
            return self._uncover(name, "too many values, or values in values")
        self._open.add(id(value))
        try:
            return shortened(self._any(value, name))
        except Exception as error:  # of code of the value
            return self._uncover(name, f"a {type(value).__name__}: {type(error).__name__}")
        finally:
            self._open.discard(id(value))

    def _any(self, value: Any, name: str) -> str:
        kind = cast("Any", type(value))
        if value is None or kind in (bool, int, float):
            return repr(value)
        if kind is str:
            return self._string(value, name)
        if kind in (list, tuple):
            return listed([self._text(item, f"{name}[]") for item in value])
        if kind is dict:
            return self._fields(value.items())
        if kind is FunctionType or kind is ModuleType or isinstance(value, type):
            return self._named(value)
        special = self._special(value, kind, name)
        return self._object(value, name) if special is None else special

    def _special(self, value: Any, kind: Any, name: str) -> str | None:
        """Return the text of an object of a type with a shorter text than that of its fields."""
        text: str | None = None
        if kind is Prompt:
            self.prompts.setdefault(self._described, []).append(value.text)
            text = self._string(value.text, "")
        elif kind in (bytes, bytearray):
            text = f"{len(value)} bytes {hashlib.sha256(value).hexdigest()[:16]}"
        elif kind in (set, frozenset):
            text = listed(sorted(self._text(item, f"{name}[]") for item in value), "*")
        elif issubclass(kind, PurePath):  # the folder may be another one tomorrow
            text = f"path {self._string(value.name, '')}"
        elif kind is re.Pattern:
            text = f"pattern {self._string(value.pattern, '')} {value.flags}"
        elif isinstance(value, Enum):
            text = f"{self._text(kind)} {value.name}"
        elif isinstance(value, functools.partial):
            of = cast("functools.partial[Any]", value)
            parts = [("function", of.func), ("arguments", of.args), *of.keywords.items()]
            text = f"partial{self._fields(parts)}"
        return text

    def _string(self, value: str, name: str) -> str:
        if value and name and names_secret(name):
            self._uncover(name, "its name is that of a secret, so it is not written")
            return MASK
        if "\n" in value.strip():
            return "|" + "".join(f"\n  {line}" for line in value.split("\n"))
        return orjson.dumps(value.encode("utf-8", "backslashreplace").decode()).decode()

    def _fields(self, items: Any) -> str:
        pairs = [(self._key(key), self._text(inner, str(key))) for key, inner in items]
        return "".join(f"\n{key}:{below(text)}" for key, text in pairs) if pairs else "{}"

    def _key(self, key: object) -> str:
        return key if type(key) is str and key.isprintable() else self._text(key)

    def _uncover(self, name: str, why: str) -> str:
        place = f"{self._where}, {name}" if name else self._where
        self.uncovered[f"{place}: {why}"] = None
        return f"({why})"

    # Functions, classes, and modules

    def _named(self, value: Any) -> str:
        """Return the label of a function or class, whose text is a part of its own, or its name."""
        if isinstance(value, ModuleType):
            self._mention(value.__name__)
            return f"module {value.__name__}"
        kind = "class" if isinstance(value, type) else "function"
        if not self._is_own(value):
            self._mention(value.__module__)
            return f"{kind} {value.__module__}.{value.__qualname__}"
        label = self._labels.get(id(value))
        if label is None:
            label = self._new_label(f"{kind} {value.__qualname__}", value)
            self._queue.append((label, value))
        return label

    def _new_label(self, wanted: str, value: object) -> str:
        label, number = wanted, 1
        while label in self.parts:
            number += 1
            label = f"{wanted} ({number})"
        self.parts[label] = ""
        self._labels[id(value)] = label
        self._kept.append(value)
        return label

    def _mention(self, module: str) -> None:
        """Note an installed package."""
        top = module.partition(".")[0]
        if top != "peerloom" and top not in sys.stdlib_module_names:
            self.packages.add(top)

    def _is_own(self, value: Any) -> bool:
        """Return whether a function, class, or module belongs to the user."""
        module = value.__name__ if isinstance(value, ModuleType) else str(value.__module__)
        top = module.partition(".")[0]
        if top == "peerloom":
            return module.startswith("peerloom.recipes.") and module != "peerloom.recipes.base"
        if top in sys.stdlib_module_names:
            return False
        if top == "__main__" or top in self._own:
            return True
        loaded = sys.modules.get(module)
        return not (getattr(loaded, "__file__", None) or "").startswith(_INSTALLED)

    def _function(self, function: FunctionType) -> Iterator[str]:
        code = function.__code__
        node = find_node(code, function.__globals__)
        if node is not None:
            changed = changed_paths(node)
            yield normal_source(node)
        else:
            changed = set[tuple[str, ...]]()
            version = ".".join(map(str, sys.version_info[:2]))
            why = f"its source is not there; compared as code of Python {version}"
            yield f"{self._uncover('', why)} {bytecode(code, self._text)}"
        if node is None or not has_literal_defaults(node):
            yield from self._lines([("defaults =", [function.__defaults__, function.__kwdefaults__])])
        roots = {path[0] for path in changed}
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            yield from self._variable(name, id(cell), lambda cell=cell: cell.cell_contents, name in roots)
        lines = [line for path in global_paths(code) for line in self._global(function, path, changed)]
        yield from dict.fromkeys(lines)

    def _global(
        self, function: FunctionType, path: tuple[str, ...], changed: set[tuple[str, ...]]
    ) -> Iterator[str]:
        """Yield the value of a global name, or that of the name in a module of the user."""
        namespace, depth = function.__globals__, 1
        while depth < len(path) and isinstance(module := namespace.get(path[depth - 1]), ModuleType):
            if not self._is_own(module):
                break
            namespace, depth = vars(module), depth + 1
        name = path[depth - 1]
        if name in namespace:
            is_changed = any(each == path[: len(each)] for each in changed)
            place = (id(namespace), name)
            yield from self._variable(".".join(path[:depth]), place, lambda: namespace[name], is_changed)

    def _variable(self, name: str, place: Any, read: Callable[[], Any], is_changed: bool) -> Iterator[str]:
        """Yield the value of a variable of a function, unless it is state."""
        try:
            value = read()
        except ValueError:  # an empty cell
            return
        if is_changed and not isinstance(value, type | FunctionType | ModuleType):
            self._changed.add(place)
        if place in self._changed:
            yield f"{name} = {self._uncover(name, 'state, which a function changes')}"
        elif type(value) in _BUILTINS:
            self._mention(str(value.__module__))
            yield f"{name} = function {_name_of(value)}"
        else:
            yield from self._lines([(f"{name} =", value)])

    def _class(self, kind: Any) -> Iterator[str]:
        bases = ", ".join(self._text(base) for base in kind.__bases__)
        yield f"class {kind.__name__}({bases})"
        if issubclass(kind, Enum):
            yield from self._lines((member.name, member.value) for member in kind)
        members: dict[str, Any] = dict(cast("Any", vars(kind)))
        annotations: dict[str, Any] = members.get("__annotations__", {})
        for name, annotation in annotations.items():
            yield f"{name}: {self._annotation(annotation)}"
        for name, member in sorted(members.items()):
            for function in self._functions_of(member):
                if (node := find_node(function.__code__, function.__globals__)) is not None:
                    self._note_attributes(kind, function, node)
                yield from self._function(function)
            is_data = (
                not issubclass(kind, Enum)
                and not name.startswith("__")
                and name not in _SKIPPED
                and not _is_code(member)
            )
            if is_data and (kind, name) not in self._changed:
                yield from self._lines([(f"{name} =", member)])

    def _annotation(self, annotation: Any) -> str:
        if isinstance(annotation, type):
            return self._text(annotation)
        used = [self._text(each) for each in get_args(annotation) if isinstance(each, type)]
        text = annotation if isinstance(annotation, str) else repr(annotation)
        if _ADDRESS in text:
            text = type(annotation).__name__
        own = [each for each in used if each in self.parts]
        return f"{text} of {', '.join(own)}" if own else text

    def _functions_of(self, member: Any) -> Iterator[FunctionType]:
        """Yield the functions of a member of a class, without those that were generated."""
        if isinstance(member, property):
            found = [member.fget, member.fset, member.fdel]
        else:
            found = [getattr(member, "__func__", None) or getattr(member, "func", None) or member]
        for each in found:
            function = each
            while isinstance(function, FunctionType) and not self._is_written_here(function):
                function = getattr(function, "__wrapped__", None)
            if isinstance(function, FunctionType) and not _is_generated(function):
                yield function

    def _is_written_here(self, function: FunctionType) -> bool:
        """Return whether a function is the user's, and no wrapper of a decorator in a package."""
        module = sys.modules.get(str(function.__globals__.get("__name__")))
        return module is None or self._is_own(module)

    def _note_attributes(self, kind: type, function: FunctionType, node: Any) -> None:
        """Note the attributes that a method changes: they are state."""
        if function.__name__ in _CONSTRUCTORS or not function.__code__.co_argcount:
            return
        first = function.__code__.co_varnames[0]
        for path in changed_paths(node):
            if path[0] == first and len(path) > 1:
                self._changed.add((kind, path[1]))

    # Objects

    def _object(self, value: Any, name: str) -> str:
        kind = cast("Any", type(value))
        if kind is MethodType:
            return f"method{self._fields([('function', value.__func__), ('of', value.__self__)])}"
        if kind in _BUILTINS:
            return self._uncover(name, f"the built-in function {_name_of(value)}")
        if isinstance(value, Iterator | Random):
            return self._uncover(name, f"a {kind.__name__}, whose state changes")
        if callable(value) and (wrapped := getattr(value, "__wrapped__", None)) is not None:
            return f"{kind.__name__}{self._fields([('of', wrapped)])}"
        state = getattr(value, "program_state", None)
        if callable(state):
            return self._text(kind) + self._state(kind, dict(cast("Mapping[str, Any]", state())))
        return self._reduced(value, name)

    def _reduced(self, value: Any, name: str) -> str:
        """Describe an object as it would be pickled, without attributes that are state."""
        reduced: Any = value.__reduce_ex__(4)
        if isinstance(reduced, str):
            return f"{type(value).__name__} {reduced}"
        fields: list[Any] = [*reduced, None, None, None]
        make, args, state, items, pairs = fields[:5]
        if make in _NEW:
            make, args = args[0], args[1:]
        text = self._text(make, name)
        if args:
            text += self._fields([("arguments", list(args))])
        states = cast("tuple[Any, ...]", state) if isinstance(state, tuple) else (state,)
        for each in states:  # the fields, and those in slots
            text += self._state(cast("Any", type(value)), each)
        for key, more in (("items", items), ("pairs", pairs)):
            if more is not None and (listed := list(more)):
                text += self._fields([(key, listed)])
        return text

    def _state(self, kind: type, state: Any) -> str:
        if state is None:
            return ""
        if not isinstance(state, dict):
            return self._fields([("state", state)])
        found: list[tuple[str, Any]] = []
        for name, inner in sorted(cast("dict[str, Any]", state).items()):
            if any((base, name) in self._changed for base in kind.__mro__):
                self._uncover(name, "state, which a function changes")
            elif not isinstance(getattr(kind, name, None), functools.cached_property):
                found.append((name.lstrip("_"), inner))
        return self._fields(found) if found else ""

    def _lines(self, items: Any) -> Iterator[str]:
        for label, value in items:
            yield f"{label}{below(self._text(value, label.removesuffix(' =')))}"


def _is_code(member: Any) -> bool:
    """Return whether a member of a class is code, or Python's own."""
    if isinstance(member, FunctionType | property | staticmethod | classmethod | functools.cached_property):
        return True
    return type(member).__name__ in _DESCRIPTORS


def _is_generated(function: FunctionType) -> bool:
    """Return whether a method was generated by `dataclass`, `NamedTuple`, or attrs."""
    code = function.__code__
    if code.co_filename.startswith("<attrs"):
        return True
    return code.co_filename == "<string>" and code.co_qualname.startswith(("__create_fn__", "<lambda>"))


def _name_of(value: Any) -> str:
    module = getattr(value, "__module__", None)
    name = getattr(value, "__qualname__", "") or getattr(value, "__name__", "")
    return f"{module}.{name}" if module and module != "builtins" else str(name)
