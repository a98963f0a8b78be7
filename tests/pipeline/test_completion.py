"""Completion of the command line, as bash does it."""

import shutil
import subprocess

import pytest

from lmworks.pipeline.completion import SHELLS
from lmworks.pipeline.main import main

TYPED = {
    "lmworks ": "run compile preview runs board gc predict schema completion --help --version",
    "lmworks r": "run runs",
    "lmworks run --r": "--root= --run= --runner=",
    "lmworks run --runner=": "local kubeflow vertex",
    "lmworks run --until=e": "evaluate export",
    "lmworks run --config=recipes/": "recipes/my.yaml recipes/more",
    "lmworks run --set=train.learn": "train.learning_rate=",
    "lmworks compile --target=k": "kubeflow",
    "lmworks runs ": "first",
    "lmworks runs --root=elsewhere s": "second",
    "lmworks runs --json ": "first",
    "lmworks runs first ": "--follow --help --json --root= --verbosity=",
    "lmworks runs first --f": "--follow",
    "lmworks runs --f": "--follow",
    "lmworks nothing --f": "",
}


@pytest.fixture
def scripts(capsys):
    written = {}
    for shell in SHELLS:
        assert main(["completion", shell]) == 0
        written[shell] = capsys.readouterr().out
    return written


def test_bash_offers_commands_flags_values_keys_files_and_runs(scripts, tmp_path):
    for folder in ("recipes/more", "runs/first", "runs/$(touch broken)", "elsewhere/second"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("recipes/my.yaml", "recipes/notes.txt"):
        (tmp_path / name).touch()
    for record in ("runs/first", "runs/$(touch broken)", "elsewhere/second"):
        (tmp_path / record / "run.json").touch()
    (tmp_path / "script").write_text(
        f"""{scripts["bash"]}
        while IFS= read -r COMP_LINE; do
            COMP_POINT=${{#COMP_LINE}} COMPREPLY=()
            _lmworks
            echo "${{COMPREPLY[*]}}"
        done
        """
    )
    bash = shutil.which("bash")
    done = subprocess.run(
        [bash, "--norc", "script"],
        input="\n".join(TYPED) + "\n",
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    offered = dict(zip(TYPED, (" ".join(line.split()) for line in done.stdout.splitlines()), strict=True))
    assert offered == TYPED
    assert not (tmp_path / "broken").exists()


def test_each_shell_knows_each_flag(scripts):
    for flag in ("in_process", "top_p", "follow", "json", "until", "verbosity"):
        assert all(flag in script for script in scripts.values()), flag
    assert scripts["zsh"].endswith(scripts["bash"])


def test_another_shell_is_refused(capsys):
    assert main(["completion", "tcsh"]) == 2
    assert "name a shell, bash, zsh, fish" in capsys.readouterr().err
