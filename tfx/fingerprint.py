"""What decides whether an execution can be reused: its key, the code it loaded, the library versions it used."""

from __future__ import annotations

import ast
import functools
import glob
import hashlib
import importlib.util
import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from lmworks.configs.paths import base_of
from lmworks.configs.url_secrets import masked_url
from lmworks.tfx.artifacts import file_sha256
from lmworks.tfx.url_digests import is_unknown, source_of, url_digest

ENGINE_VERSION = 1
"""Raised when the engine changes what an execution means, so that nothing older is reused."""

PROJECT = "lmworks"


def key(component: str, config: Mapping[str, Any], inputs: Mapping[str, str], external: Mapping[str, str]) -> str:
    """Key of an execution, 32 hex digits.

    It promises the result of the component from the beginning, whatever was done before under the same or another key. Work that
    goes on from unfinished work of another key (`resume_key`) must end as if it had begun anew: up to rounding, where the component
    allows that, and then it says so in its output's properties.

    Args:
        component: its entry.
        config: of the stage, as JSON values.
        inputs: digests of the input artifacts.
        external: digests of what the config names outside the store.
    """
    content = [ENGINE_VERSION, component, config, inputs, external]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def resume_key(component: str, config: BaseModel, inputs: Mapping[str, str], external: Mapping[str, str]) -> str:
    """Key of the unfinished work that an execution may go on from, which executions of several keys may share.

    What cannot be found out outside the store equals itself here: a killed execution is gone on from as it began.

    Args:
        component: its entry.
        config: of the stage; what `resume_identity()` gives of it decides, where it has that.
        inputs: digests of the input artifacts.
        external: digests of what the config names outside the store.
    """
    identity = getattr(config, "resume_identity", None)
    known = {name: "unknown" if is_unknown(digest) else digest for name, digest in external.items()}
    return key(component, identity() if identity else config.model_dump(mode="json"), inputs, known)


def external(config: BaseModel, digest: Callable[[Path], str] = file_sha256) -> dict[str, str]:
    """Digests, by content, of the paths and URLs that `config.external()` names; in their names is no secret of a URL.

    Args:
        config: of a stage.
        digest: of one local file; the runner passes a memoised one.
    """
    named: tuple[str, ...] = getattr(config, "external", tuple)()
    digests: dict[str, str] = {}
    for name in dict.fromkeys(named):
        shown, count = masked_url(name), 1
        while shown in digests:  # two queries of one address may be two objects
            count += 1
            shown = f"{masked_url(name)} ({count})"
        digests[shown] = _digest_of(name, digest)
    return digests


def changed_outside(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Names in both whose content is known to differ."""
    both = [(name, before[name], now[name]) for name in before if name in now]
    return [name for name, old, new in both if old != new and not (is_unknown(old) or is_unknown(new))]


def _digest_of(name: str, digest: Callable[[Path], str]) -> str:
    name = (source_of(name) if "://" in name else name).removeprefix("file://")
    if "://" in name:
        return url_digest(name)
    base = base_of(name)
    place = Path(base, name)
    names = () if place.exists() else glob.glob(name, root_dir=base or None, recursive=True)
    matches = sorted(Path(base, match) for match in names) or [place]
    files = [file for match in matches for file in ([match] if match.is_file() else _files_below(match))]
    # By their names below the base, so that a run from elsewhere has the same key.
    content = [[str(file.relative_to(base) if base else file), digest(file)] for file in files]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest() if content else "absent"


def _files_below(folder: Path) -> list[Path]:
    """All files, also behind links to folders, for whoever opens a preset follows them too; each folder once."""
    found, seen = [], set()
    for where, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(where)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        found += [path for name in names if (path := Path(where, name)).is_file()]
    return sorted(found)


def versions() -> dict[str, str]:
    """Versions of Python and of those direct dependencies that this process has loaded."""
    direct = {re.split(r"[^A-Za-z0-9._-]", line)[0].lower() for line in metadata.requires(PROJECT) or []} | {
        "keras-hub"
    }
    loaded = {module.partition(".")[0] for module in sys.modules}
    found = {"python": _python_version()}
    for module, names in _distributions().items():
        if module in loaded:
            found |= {name: metadata.version(name) for name in names if name.lower() in direct}
    return found


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    """Names of the installed packages by module; reading all of their files takes a fifth of a second."""
    return metadata.packages_distributions()


def changed_versions(recorded: Mapping[str, str]) -> list[str]:
    """Libraries whose version is another than the recorded one."""
    return [name for name, version in recorded.items() if _version(name) != version]


def _version(name: str) -> str:
    try:
        return _python_version() if name == "python" else metadata.version(name)
    except (metadata.PackageNotFoundError, ValueError):
        return "absent"


def _python_version() -> str:
    return ".".join(map(str, sys.version_info[:2]))


def code(*modules: str, started: float) -> dict[str, str]:
    """Digests of the project's modules that these modules have loaded, directly or not, without `configs`.

    An import inside a function counts once the module is loaded. So the answer is the same in a process of the stage's own
    and in one that has run other stages.

    Args:
        *modules: where to begin.
        started: seconds since the epoch when the process began to work; a file changed later is not what was loaded, and
            gets a digest that nothing equals.
    """
    found: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module in found or module not in sys.modules or module.startswith(f"{PROJECT}.configs"):
            continue
        path = getattr(sys.modules[module], "__file__", None)
        if path is None:
            continue
        found[module] = _source_digest(path) if Path(path).stat().st_mtime <= started else "changed while it ran"
        parents = module.split(".")
        waiting += [".".join(parents[:count]) for count in range(2, len(parents))]
        waiting += _imports(path)
    return dict(sorted(found.items()))


def changed_code(recorded: Mapping[str, str]) -> list[str]:
    """Modules whose content is no longer the recorded one, but for comments and docstrings."""
    return [module for module, digest in recorded.items() if _current_digest(module) != digest]


def _current_digest(module: str) -> str:
    package = module.rpartition(".")[0]
    if package and package not in sys.modules and not module.startswith(f"{PROJECT}."):
        return "absent"  # `find_spec` would import the package, and the name may be of anybody's choice
    try:
        spec = importlib.util.find_spec(module)
        return _source_digest(spec.origin) if spec and spec.origin else "absent"
    except (ImportError, ValueError, OSError, SyntaxError):  # no module, or none with a source
        return "absent"


def _source_digest(path: str) -> str:
    """Digest of a module's content, without comments and docstrings."""
    status = os.stat(path)
    return _digest_of_source(path, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@functools.cache
def _digest_of_source(path: str, *status: int) -> str:
    tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):  # a string that stands alone is a docstring
            node.body = [one for one in body if not _is_text(one)]  # type: ignore[attr-defined]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:32]


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


@functools.cache
def _imports(path: str) -> tuple[str, ...]:
    names = []
    for node in ast.walk(ast.parse(Path(path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(name for name in names if name.startswith(f"{PROJECT}."))
