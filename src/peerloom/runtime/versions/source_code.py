"""Find the source of a running function, and write it in a normal form.

The normal form has no comments, docstrings, or formatting. Source counts only if it compiles to the code that
runs: a file that was edited after its import does not.
"""

import ast
import dis
import hashlib
import linecache
from collections.abc import Callable, Iterator
from functools import cache
from types import CodeType
from typing import Any, NamedTuple

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_LOADS = ("LOAD_GLOBAL", "LOAD_NAME")
_ATTRIBUTES = ("LOAD_ATTR", "LOAD_METHOD")
_MUTATORS = frozenset(
    "add append appendleft clear discard extend insert pop popitem popleft put remove setdefault update "
    "move_to_end put_nowait sort reverse".split()
)

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
Path = tuple[str, ...]


class _Module(NamedTuple):
    """A parsed file, and all code that it compiles to."""

    functions: list[FunctionNode]
    codes: frozenset[CodeType]


def find_node(code: CodeType, namespace: dict[str, Any]) -> FunctionNode | None:
    """Return the syntax tree of a function, or None if its source is unknown or not the code that runs."""
    linecache.checkcache(code.co_filename)
    module = _parsed("".join(linecache.getlines(code.co_filename, namespace)), code.co_filename)
    if module is None or code not in module.codes:
        return None
    found = [node for node in module.functions if _matches(node, code)]
    if len(found) > 1:  # lambdas in one line: the innermost whose body has all instructions
        found = [node for node in found if _surrounds(node, code)]
        found.sort(key=lambda node: (node.lineno, node.col_offset))
    return found[-1] if found else None


def normal_source(node: FunctionNode) -> str:
    """Return the source of a function in normal form."""
    copy = ast.parse(ast.unparse(node)).body[0]
    for inner in ast.walk(copy):
        if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            first = inner.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                inner.body = inner.body[1:] or [ast.Pass()]
    return ast.unparse(copy)


def has_literal_defaults(node: FunctionNode) -> bool:
    """Return whether the source shows the default of each parameter."""
    defaults = [*node.args.defaults, *node.args.kw_defaults]
    return all(each is None or isinstance(each, ast.Constant) for each in defaults)


def bytecode(code: CodeType, text_of: Callable[[object], str]) -> str:
    """Return a digest of the code of a function without source; `text_of` describes its constants."""
    digest = hashlib.sha256(code.co_code)
    for names in (code.co_names, code.co_varnames, code.co_freevars):
        digest.update(repr(names).encode())
    for constant in code.co_consts:
        inner = bytecode(constant, text_of) if isinstance(constant, CodeType) else text_of(constant)
        digest.update(inner.encode())
    return digest.hexdigest()[:16]


def global_paths(code: CodeType) -> list[Path]:
    """Return the global names that a function reads, each with the attributes that it reads of it."""
    found: dict[Path, None] = {}
    path: list[str] = []
    for inner in _nested(code):
        for instruction in dis.get_instructions(inner):
            if path and instruction.opname in _ATTRIBUTES:
                path.append(str(instruction.argval))
                continue
            if path:
                found[tuple(path)] = None
            path = [str(instruction.argval)] if instruction.opname in _LOADS else []
    return sorted(found)


def changed_paths(node: ast.AST) -> set[Path]:
    """Return the names that a function changes, as `("name",)` or `("self", "attribute")`."""
    found: set[Path] = set()
    for inner in ast.walk(node):
        match inner:
            case ast.Global(names=names) | ast.Nonlocal(names=names):
                found |= {(name,) for name in names}
            case ast.Attribute(ctx=ast.Store() | ast.Del()):
                found.add(_path(inner))
            case ast.Subscript(value=value, ctx=ast.Store() | ast.Del()):
                found.add(_path(value))
            case ast.Call(func=ast.Attribute(value=value, attr=name)) if name in _MUTATORS:
                found.add(_path(value))
            case ast.Call(func=ast.Name(id="next"), args=[value, *_]):
                found.add(_path(value))
            case _:
                pass
    found.discard(())
    return found


def _path(node: ast.expr) -> Path:
    """Return the name at the root of an expression, with the first attribute after it."""
    names: list[str] = []
    while isinstance(node, ast.Attribute | ast.Subscript):
        if isinstance(node, ast.Attribute):
            names.append(node.attr)
        node = node.value
    return (node.id, *names[::-1][:1]) if isinstance(node, ast.Name) else ()


@cache
def _parsed(source: str, filename: str) -> _Module | None:
    try:
        tree = ast.parse(source)
        compiled = compile(source, filename, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError):
        return None
    functions = [node for node in ast.walk(tree) if isinstance(node, _FUNCTIONS)]
    return _Module(functions, frozenset(_nested(compiled)))


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


def _matches(node: FunctionNode, code: CodeType) -> bool:
    if isinstance(node, ast.Lambda):
        return code.co_name == "<lambda>" and node.lineno == code.co_firstlineno
    first = min((each.lineno for each in node.decorator_list), default=node.lineno)
    return code.co_name == node.name and min(first, node.lineno) == code.co_firstlineno


def _surrounds(node: FunctionNode, code: CodeType) -> bool:
    """Return whether the body of a lambda has all instructions of the code."""
    if not isinstance(node, ast.Lambda):
        return True
    body = node.body
    start, end = (body.lineno, body.col_offset), (body.end_lineno or 0, body.end_col_offset or 0)
    for line, last, column, last_column in code.co_positions():
        if line and last and last_column and column is not None:
            if (line, column) < start or (last, last_column) > end:
                return False
    return True
