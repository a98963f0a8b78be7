"""Completion of the command line in bash, zsh and fish, as a script that the shell reads."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

SHELLS = ("bash", "zsh", "fish")

_ZSH = """# Completion of lmworks: source <(lmworks completion zsh)
autoload -U +X compinit && compinit -u
autoload -U +X bashcompinit && bashcompinit
"""
_PATHS = ("config", "root", "servable", "input", "output")
"""Flags whose values are paths."""


class Flag(NamedTuple):
    """A flag of a command."""

    name: str
    about: str
    values: Sequence[str] = ()
    """The values it takes; empty if others are possible too."""
    switch: bool = False
    """Whether it stands without a value."""


class Command(NamedTuple):
    """A command with its flags."""

    about: str
    flags: Sequence[Flag]


def script(shell: str, commands: Mapping[str, Command], keys: Sequence[str]) -> str:
    """Writes the completion for a shell.

    Args:
        shell: One of `SHELLS`.
        commands: The commands by name.
        keys: The dotted keys of a config, for `--set`.

    Returns:
        The script, for the shell to read.
    """
    if shell == "fish":
        return _fish(commands, keys)
    flags, values = [], []
    settings = " ".join(f'"$prefix"{key}=' for key in keys)
    for name, command in commands.items():
        words = " ".join(f"--{flag.name}" if flag.switch else f"--{flag.name}=" for flag in command.flags)
        flags.append(f'            {name}) _lmworks_offer "$word" {words} ;;')
        for flag in command.flags:
            if flag.values:
                offered = " ".join(f'"$prefix"{value}' for value in flag.values)
                values.append(f'            {name}--{flag.name}) _lmworks_offer "$prefix$value" {offered} ;;')
    parts = {
        "COMMANDS": " ".join(commands),
        "KEYS": settings,
        "FLAGS": "\n".join(flags),
        "VALUES": "\n".join(values),
    }
    text = Path(__file__).with_name("completion.bash").read_text(encoding="utf-8")
    for name, part in parts.items():
        text = text.replace(f"@{name}@", part)
    return text if shell == "bash" else _ZSH + text


def _fish(commands: Mapping[str, Command], keys: Sequence[str]) -> str:
    lines = ["# Completion of lmworks: lmworks completion fish | source", "complete -c lmworks -f"]
    lines += ["complete -c lmworks -n __fish_use_subcommand -l version -d 'the version'"]
    for name, command in commands.items():
        about = shlex.quote(command.about)
        lines.append(f"complete -c lmworks -n __fish_use_subcommand -a {name} -d {about}")
        here = f"complete -c lmworks -n '__fish_seen_subcommand_from {name}'"
        for flag in command.flags:
            line = f"{here} -l {flag.name} -d {shlex.quote(flag.about)}"
            if flag.name == "set":
                line += f" -x -a '{' '.join(f'{key}=' for key in keys)}'"
            elif flag.values:
                line += f" -x -a '{' '.join(flag.values)}'"
            elif flag.name in _PATHS:
                line += " -r -F"
            elif not flag.switch:
                line += " -x"
            lines.append(line)
    lines.append(
        "complete -c lmworks -n '__fish_seen_subcommand_from runs; "
        'and test (count (string match -v -- "-*" (commandline -opc))) -eq 2\' '
        '-a \'(path filter -d runs/* 2>/dev/null | string replace -r ".*/" "")\''
    )
    return "\n".join(lines) + "\n"
