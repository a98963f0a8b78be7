"""The house stands as it is drawn: imports go down only, and every folder is packaged."""

import ast
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("configs", "models", "tfx", "pipeline")
FRAMEWORKS = {"tensorflow", "tensorflow_text", "keras", "keras_hub", "jax", "kfp", "google.cloud.aiplatform", "torch"}


def declared() -> dict[str, set[str]]:
    found = {}
    for node in ast.parse((ROOT / "BUILD").read_text()).body:
        assert isinstance(node, ast.Expr)
        assert isinstance(node.value, ast.Call)
        arguments = {keyword.arg: keyword.value for keyword in node.value.keywords}
        found[ast.literal_eval(arguments["name"])] = {
            name.removeprefix(":") for name in ast.literal_eval(arguments["deps"])
        }
    return found


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def real(folder: str) -> set[str]:
    names = {name for path in (ROOT / folder).rglob("*.py") for name in imports(path)}
    return {name.split(".")[1] for name in names if name.startswith("lmworks.")} - {folder}


@pytest.mark.parametrize("folder", FOLDERS)
def test_build_names_the_real_imports(folder):
    assert real(folder) == declared()[folder]


def test_no_import_goes_up():
    allowed = {"configs": set(), "models": {"configs"}, "tfx": {"configs"}, "pipeline": {"configs", "models", "tfx"}}
    assert declared() == allowed


def test_engine_knows_no_stage():
    stages = {path.name for path in (ROOT / "pipeline").iterdir() if (path / "component.py").exists()}
    assert len(stages) == 7  # push where a config asks for it, register on Vertex AI only
    words = {
        node.value
        for path in (ROOT / "tfx").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert not stages & words


def test_every_source_folder_is_packaged():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {path.parent.relative_to(ROOT) for name in FOLDERS for path in (ROOT / name).rglob("*.py")}
    assert {".".join(("lmworks", *folder.parts)) for folder in folders} == set(settings["packages"])
    assert all((ROOT / name / "py.typed").exists() for name in FOLDERS)


def test_tfx_is_no_package_of_that_name():
    assert not (ROOT / "tfx" / "__init__.py").exists()


def without_encoding(call: ast.Call) -> bool:
    """Whether a call opens text in whatever encoding the locale has."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    named = {keyword.arg: keyword.value for keyword in call.keywords}
    if "encoding" in named:
        return False
    constants = [node.value for node in [*call.args, *named.values()] if isinstance(node, ast.Constant)]
    if name in ("open", "fdopen", "NamedTemporaryFile", "TemporaryFile", "SpooledTemporaryFile"):
        mode = next(
            (value for value in constants if isinstance(value, str) and re.fullmatch("[rwax][bt+]*", value)), None
        )
        text_is_default = ast.unparse(call.func) in ("open", "os.fdopen") or not call.args
        return text_is_default if mode is None else "b" not in mode
    positions = {"read_text": 1, "write_text": 2, "TextIOWrapper": 2}
    if name in positions:
        return len(call.args) < positions[name]
    return any(getattr(named.get(option), "value", False) is True for option in ("text", "universal_newlines"))


def test_every_text_file_names_its_encoding():
    """Ruff's PLW1514 sees a path only where it is made on the spot, and a locale other than UTF-8 no test can count on."""
    calls = (
        "open(x)|open(x, 'w')|p.open()|p.open('a')|p.read_text()|p.write_text(x)|run(x, text=True)|os.fdopen(3, 'w')"
    )
    caught = [without_encoding(ast.parse(call, mode="eval").body) for call in calls.split("|")]
    assert all(caught), calls
    lines = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and without_encoding(node)
    ]
    assert not lines


def test_doors_and_command_import_no_framework():
    doors = [f"lmworks.pipeline.{path.parent.name}.component" for path in ROOT.glob("pipeline/*/component.py")]
    runners = [f"lmworks.tfx.{name}" for name in ("local", "kubeflow", "vertex")]
    code = f"import sys, {', '.join([*doors, *runners])}, lmworks.pipeline.main; print(*sys.modules)"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert not loaded & FRAMEWORKS


def test_help_answers_soon():
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "lmworks.pipeline.main", "--help"], capture_output=True, check=True)
    assert time.monotonic() - began < 5  # under one on a quiet machine; this catches a heavy import only
