"""What the pages under docs/ and the README show can be typed: their configs compile, their flags exist."""

import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lmworks.configs.load import load
from lmworks.pipeline.main import _COMMANDS, main

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "docs/kubeflow.md", "docs/vertex.md"]


@pytest.mark.parametrize("page", PAGES[1:])
def test_configs_of_the_page_compile(page, tmp_path, capfd):
    blocks = re.findall(r"```yaml (\w+)\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert blocks
    for target, text in blocks:
        tree = yaml.safe_load((ROOT / "configs" / "tiny.yaml").read_text()) | yaml.safe_load(text)
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(yaml.safe_dump(tree))
        arguments = ["compile", f"--config={recipe}", f"--target={target}", f"--output={tmp_path / 'a.yaml'}"]
        assert main(arguments) == 0, capfd.readouterr().err


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_flags_of_the_page_exist(page):
    text = (ROOT / page).read_text().replace("\\\n", " ")
    typed = re.findall(r"(?:^|/| |`)lmworks ([a-z]+)((?: +(?:--|\[--|<|')[^\n]*)?)", text)
    assert typed
    for command, rest in typed:
        if command in _COMMANDS:
            known = flags_of(command)
            for flag in re.findall(r"--([a-z_]+)", rest.split("&&")[0]):
                assert flag in known, f"{page}: lmworks {command} has no --{flag}"


@functools.cache
def flags_of(command: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-m", "lmworks.pipeline.main", command, "--help"], capture_output=True, text=True, cwd=ROOT
    )
    return set(re.findall(r"--([a-z_]+)", done.stdout))


@pytest.mark.parametrize("page", PAGES)
def test_keys_that_the_page_sets_exist(page):
    text = (ROOT / page).read_text()
    for key, value in re.findall(r"--set='?([a-z_.]+)=([^\s'\\`]*)", text):
        if value and "$" not in value and "{" not in value and "…" not in value and key.startswith("platform"):
            load(ROOT / "configs" / "tiny.yaml", [f"{key}={value}"])
    for key in re.findall(r"`(platform(?:\.[a-z_]+)+)`", text):
        node = load(ROOT / "configs" / "tiny.yaml").model_dump()
        for part in key.split("."):
            assert part in node, f"{page}: there is no key {key}"
            node = node[part]
