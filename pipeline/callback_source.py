"""What can be said of a callback by the source of its module alone, without importing it or Keras, which takes seconds.

Whether it is one is known for certain only when the module is imported, as the stage `train` does before any work.
"""

from __future__ import annotations

import ast
import difflib
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

_Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
_BINDING = {"globals", "locals", "vars", "setattr", "exec", "eval", "__import__"}
"""Functions by which a module may get names that no statement of it binds."""


def why_no_callback(entry: str) -> str | None:
    """Says why an entry of `train.callbacks` cannot be a callback; None where it may be.

    Args:
        entry: `module:name`.
    """
    module, _, name = entry.partition(":")
    spec = _find(module)
    if _is_standard(module.partition(".")[0]):
        return "is of Python's standard library, which has no subclass of keras.callbacks.Callback"
    if spec is None:
        return f"cannot be imported: there is no module {module!r} on Python's path or in {os.getcwd()}"
    if not spec.origin or not spec.origin.endswith(".py"):
        return None
    try:
        tree = ast.parse(Path(spec.origin).read_bytes(), spec.origin)
    except (SyntaxError, ValueError, RecursionError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) else ""
        return f"cannot be imported: {spec.origin}{line}: {getattr(error, 'msg', None) or error}"
    except OSError as error:
        return f"cannot be imported: {spec.origin}: {error.strerror or error}"
    known = _names(tree)
    if known is not None and name not in known:
        return f"cannot be imported: {spec.origin} defines no {name}{nearest(entry, known)}"
    definitions = [node for node in tree.body if isinstance(node, _Definition) and node.name == name]
    return _why_not(definitions[-1]) if definitions and known is not None else None


def nearest(entry: str, names: Iterable[str]) -> str:
    """Asks whether another name of the module is meant; empty if none is near.

    Args:
        entry: `module:name`.
        names: Of the module.
    """
    module, _, name = entry.partition(":")
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {module}:{near[0]}?" if near else ""


def _is_standard(module: str) -> bool:
    """Whether a top-level module is Python's own, and no other of its name comes before it on Python's path."""
    if module not in sys.stdlib_module_names:
        return False
    spec = _find(module)
    if spec is None or not spec.origin:  # built in, which the path does not decide
        return True
    return any(Path(spec.origin).is_relative_to(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib"))


def _find(module: str) -> ModuleSpec | None:
    """Finds a module as an import would, without importing the packages that it is in."""
    path: Sequence[str] | None = [*(entry or os.getcwd() for entry in sys.path), os.getcwd()]
    spec, name = None, ""
    for part in module.split("."):
        name = f"{name}.{part}".removeprefix(".")
        spec = PathFinder.find_spec(name, path) if path is not None else None
        if spec is None:
            return None
        path = spec.submodule_search_locations
    return spec


def _names(tree: ast.Module) -> set[str] | None:
    """The names that a module has; None where they cannot be told from its text."""
    names: set[str] = set()
    for inner in ast.walk(tree):
        if isinstance(inner, ast.Name) and inner.id in _BINDING:
            return None
        if isinstance(inner, ast.Attribute) and inner.attr in (
            "modules",
            "__dict__",
            "__setattr__",
        ):  # of `sys`, of a module
            return None
        if isinstance(inner, ast.Global):
            names |= {*inner.names}
    for node in _statements(tree.body):
        if isinstance(node, _Definition):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        else:
            names |= {one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}
    return None if names & {"*", "__getattr__"} else names


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements of a module, also those under an `if`, `try`, `with` or a loop, but not those in functions and classes."""
    for node in body:
        yield node
        if not isinstance(node, _Definition):
            for part in ("body", "orelse", "finalbody"):
                yield from _statements(getattr(node, part, []))
            for branch in (*getattr(node, "handlers", []), *getattr(node, "cases", [])):
                yield from _statements(branch.body)


def _why_not(node: _Definition) -> str | None:
    if isinstance(node, ast.ClassDef) and not node.bases and not node.keywords and not node.decorator_list:
        return "is a class without a base; it must be a subclass of keras.callbacks.Callback"
    if isinstance(node, ast.AsyncFunctionDef) or (
        isinstance(node, ast.FunctionDef) and node.returns is None and not node.decorator_list
    ):
        return (
            "is a function that does not say what it returns; annotate it "
            f"(def {node.name}() -> keras.callbacks.Callback), for nothing else is called"
        )
    is_class = isinstance(node, ast.ClassDef)
    own = [one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"]
    for function in own if is_class else [node]:
        if isinstance(function, ast.FunctionDef) and not function.decorator_list and not node.decorator_list:
            arguments = function.args
            positional = [*arguments.posonlyargs, *arguments.args][int(is_class) :]
            needed = [one.arg for one in positional[: max(0, len(positional) - len(arguments.defaults))]]
            needed += [
                one.arg for one, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if value is None
            ]
            if needed:
                return f"must be callable without arguments, and needs {', '.join(needed)}"
    return None
