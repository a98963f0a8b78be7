"""The command line: `lmworks run | compile | preview | runs | board | gc | predict | schema | completion`."""

from __future__ import annotations

import difflib
import errno
import importlib.metadata
import json
import re
import shlex
import shutil
import sqlite3
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from lmworks.configs.errors import UserError
from lmworks.configs.load import ConfigError, key_called, load
from lmworks.configs.paths import beside, expand
from lmworks.configs.schema import Config, check_name
from lmworks.configs.shown import shown
from lmworks.configs.stores import check_root
from lmworks.configs.url_secrets import masked, masked_url, password_advice
from lmworks.tfx import surroundings, tensorflow_logs

if TYPE_CHECKING:
    from lmworks.tfx.local import Result
    from lmworks.tfx.remote import RemoteRoot

DONE, FAILED, USAGE, NOT_BLESSED = range(4)
"""Exit codes."""
INTERRUPTED = 130
"""As shells say it of SIGINT."""

_STAGES = ("ingest", "preprocess", "train", "evaluate", "export")
_TARGETS = ("kubeflow", "vertex")
_ABSL_LIST = ";\n    repeat this option to specify a list of values"
_PATHS = ("config", "input", "output", "root", "servable")
"""Flags whose `~` and `$VARIABLES` are expanded; a shell expands no `~` behind `=`."""


def entry() -> None:
    """The console command."""
    if not (3, 11) <= sys.version_info[:2] <= (3, 13) or sys.platform == "win32":
        version = ".".join(map(str, sys.version_info[:2]))
        sys.exit(f"lmworks runs on Python 3.11 to 3.13 on Linux and macOS, and this is {version} on {sys.platform}")
    sys.excepthook = _print_traceback
    try:
        surroundings.settle("lmworks.pipeline.main", answers=sys.argv[1:2] != ["run"])
    except UserError as error:
        sys.exit(f"lmworks: {error}")
    code = main(sys.argv[1:])
    try:
        sys.stdout.flush()
    except UserError as error:
        sys.exit(f"lmworks: {error}")
    sys.exit(code)


def _print_traceback(kind: type[BaseException], error: BaseException, trace: object) -> None:
    """Prints an error as Python does, without the secrets of URLs that an error of a library may hold."""
    print(masked("".join(traceback.format_exception(error))), file=sys.stderr, end="")


def main(arguments: Sequence[str]) -> int:
    """Runs one command.

    Args:
        arguments: without the program's name.

    Returns:
        0 done and help; 1 a stage failed; 2 bad usage or config; 3 not blessed; 130 interrupted.
    """
    if len(arguments) > 1 and arguments[0] == "help" and arguments[1] in _COMMANDS:
        arguments = [arguments[1], "--help"]
    if not arguments or arguments[0] in ("help", "--help", "-h", "-help"):
        print(_help())
        return DONE if arguments else USAGE
    if arguments[0] in ("version", "--version", "-version"):
        print(_version())
        return DONE
    command = _COMMANDS.get(arguments[0])
    if command is None:
        name = shown(repr(arguments[0]), 80)
        print(f"lmworks: unknown command {name}; {_command_hint(arguments[0])}", file=sys.stderr)
        return USAGE
    _, act, about = command
    values = _flags_of(arguments[0])
    try:
        rest = _parse(values, arguments)
        if values.help:
            print(f"lmworks {arguments[0]}: {about}\n\n{_flags_help(values)}")
            return DONE
        if values.verbosity > 0:
            tensorflow_logs.show()
        for name in _PATHS:
            if name in values and values[name].value:
                if advice := password_advice(values[name].value):
                    raise ConfigError(f"--{name}: {advice}")
                values[name].value = expand(values[name].value, f"--{name}")
        if "root" in values:
            check_root(values.root)
        with beside(values.config if "config" in values else None):
            return act(values, rest)
    except (flags.Error, ConfigError) as error:
        _complain(arguments[0], error)
        return USAGE
    except UserError as error:  # a stage's log, which is shown with --verbosity=1, has its traceback
        _complain(arguments[0], error)
        return FAILED
    except (OSError, sqlite3.Error) as error:
        full = getattr(error, "errno", None) == errno.ENOSPC or "disk is full" in str(error)
        reason: object = "the disk is full; free some space and run the same command again" if full else error
        place = getattr(error, "filename", None)
        if not full and "root" in values and str(place).startswith(values.root):
            reason = f"--root={values.root}: {place}: {getattr(error, 'strerror', error)}"
        _complain(arguments[0], reason)
        if values.verbosity > 0:
            raise
        return FAILED
    except KeyboardInterrupt as interrupt:
        told = str(interrupt) or "interrupted"
        told += "" if "the same command" in told or "the run" in told else "; the same command goes on from here"
        _complain(arguments[0], told)
        return INTERRUPTED


def _flags_of(command: str) -> flags.FlagValues:
    """The flags of a command, with their defaults."""
    values = flags.FlagValues()
    flags.DEFINE_integer("verbosity", 0, "1 shows a failed stage's log, and what TensorFlow logs.", flag_values=values)
    flags.DEFINE_boolean("help", False, "This text.", short_name="h", flag_values=values)
    _COMMANDS[command][0](values)
    return values


def _version() -> str:
    """The program's version, and those of what it stands on."""
    python = ".".join(map(str, sys.version_info[:3]))
    below = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("keras", "keras-hub", "tensorflow"))
    return f"lmworks {importlib.metadata.version('lmworks')} (Python {python}, {below})"


def _complain(command: str, error: object) -> None:
    print(f"lmworks {command}: {shown(error, lines=True)}", file=sys.stderr)


def _command_hint(name: str) -> str:
    name = name.lower()
    if name.startswith("-"):
        return f"the command comes first: lmworks COMMAND {name.partition('=')[0]}=…"
    meant = [_OTHER_COMMANDS[name]] if name in _OTHER_COMMANDS else difflib.get_close_matches(name, _COMMANDS, n=1)
    return f"did you mean {meant[0]}?" if meant else f"known: {', '.join(_COMMANDS)}"


def _parse(values: flags.FlagValues, arguments: Sequence[str]) -> Sequence[str]:
    """Reads the flags of a command.

    Args:
        values: get them.
        arguments: the command and what follows it.

    Returns:
        The arguments that are no flags.

    Raises:
        flags.Error: a flag is not known, or has a value that it cannot have.
        ConfigError: it is a key of the config, or is set to nothing.
    """
    try:
        rest = list(values(arguments))[1:]
    except flags.UnrecognizedFlagError as error:
        if arguments[0] == "runs" and error.flagname == "run":
            name = re.search(r"-run[= ](\S+)", " ".join(arguments))
            raise ConfigError(f"--run is no flag of runs; say lmworks runs {name[1] if name else 'NAME'}") from None
        if "set" in values and (key := key_called(error.flagname)):
            raise ConfigError(f"--{error.flagname} is no flag; did you mean --set={key}=…?") from None
        raise
    except flags.IllegalFlagValueError as error:
        choice = re.search(r"=(.*): value should be one of <(.*)>", str(error), re.DOTALL)
        near = difflib.get_close_matches(choice[1], choice[2].split("|"), n=1) if choice else []
        if near:
            raise ConfigError(f"{error}; did you mean {near[0]}?") from None
        raise
    except UnicodeDecodeError:
        raise ConfigError("--flagfile: is no UTF-8 text") from None
    for name in values:
        flag = values[name]
        if flag.present and isinstance(flag.value, str) and not flag.value.strip():
            raise ConfigError(f"--{name}={flag.value} is empty; is a variable not set?")
    return rest


def _help() -> str:
    lines = [f"  {name:<11} {about}" for name, (_, _, about) in _COMMANDS.items()]
    more = "lmworks COMMAND --help\nlmworks --version"
    return "lmworks: raw text in, a served language model out.\n\n" + "\n".join(lines) + f"\n\n{more}"


def _flags_help(values: flags.FlagValues) -> str:
    lines = []
    for name in sorted(values):
        if name == values[name].name:
            default = f" (default {values[name].default})" if values[name].default not in (None, False, []) else ""
            about = str(values[name].help).removesuffix(_ABSL_LIST).strip()
            lines.append(f"  --{name:<11} {about}{default}")
    return "\n".join(lines)


def _no_more(rest: Sequence[str], command: str) -> None:
    if rest:
        raise ConfigError(f"unexpected argument {shown(repr(rest[0]), 80)}; {_flag_meant(rest[0], command)}")


def _flag_meant(argument: str, command: str) -> str:
    """Says which flag an argument may be meant for."""
    known = _flags_of(command)
    if "config" in known and argument.endswith((".yaml", ".yml")):
        return f"did you mean --config={shlex.quote(argument)}?"
    if "set" in known and "=" in argument:
        return f"did you mean --set={shlex.quote(argument)}?"
    if "text" in known:
        return f"did you mean --text={shlex.quote(argument)}?"
    return "flags are --name=value"


def _define_root(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "root", "runs", "Folder of store, state and runs; or a URL: s3://BUCKET/FOLDER, gs://…", flag_values=values
    )


def _is_url(root: str) -> bool:
    return "://" in root


def _remote(values: flags.FlagValues, write: bool = True) -> RemoteRoot | None:
    """The root where it is at a URL."""
    if not _is_url(values.root):
        return None
    from lmworks.tfx.remote import RemoteRoot

    remote = RemoteRoot(values.root)
    remote.store.check(write)
    return remote


def _define_config(values: flags.FlagValues) -> None:
    flags.DEFINE_string("config", None, "The recipe, a YAML file.", flag_values=values)
    flags.DEFINE_multi_string("set", [], "KEY=VALUE, overrides a key; may be repeated.", flag_values=values)


def _config(values: flags.FlagValues) -> Config:
    if not values.config:
        raise ConfigError("--config=FILE.yaml is missing; recipes: configs/*.yaml")
    return load(values.config, values.set)


def _check(config: Config, until: str | None = None, here: bool = True) -> None:
    """Refuses at once what would fail in a later stage."""
    from lmworks.pipeline.preflight import check  # imported here: a config error and --help answer at once

    check(config, _STAGES[: _STAGES.index(until) + 1] if until else (*_STAGES, "push"), here)


def _execute(
    values: flags.FlagValues, config: Config, name: str, until: str | None, in_process: bool = False
) -> list[Result]:
    """Runs a config's stages, up to one of them, under a name."""
    # Imported here: a config error and --help answer at once.
    from lmworks.pipeline.graph import graph
    from lmworks.pipeline.memory import check_memory
    from lmworks.tfx.local import LocalRunner
    from lmworks.tfx.process import interrupt_on_sigterm

    interrupt_on_sigterm()
    nodes = graph(config, until, run=name)
    if not _is_url(values.root) and any(node.name == "train" for node in nodes):
        check_memory(config)  # behind a URL another machine may have trained it
    remote = _remote(values)
    root = remote.mirror if remote else Path(values.root)
    overrides = [masked_url(assignment) for assignment in values.set]
    record = {"config": config.model_dump(mode="json"), "recipe": values.config, "overrides": overrides}
    return LocalRunner(root, name, record, in_process, values.verbosity > 0, remote).execute(nodes)


def _define_run(values: flags.FlagValues) -> None:
    _define_root(values)
    _define_config(values)
    flags.DEFINE_string("run", None, "Name of the run; the config's name when not given.", flag_values=values)
    flags.DEFINE_enum("until", None, _STAGES, "Last stage to run.", flag_values=values)
    flags.DEFINE_boolean("in_process", False, "All stages in this process, for a debugger.", flag_values=values)
    flags.DEFINE_enum("runner", "local", ("local", *_TARGETS), "Where it runs; see platform.*", flag_values=values)
    flags.DEFINE_boolean("detach", False, "On a cluster: submit and do not watch.", flag_values=values)
    flags.DEFINE_string(
        "cron",
        None,
        "On a cluster: again and again, at MINUTE HOUR DAY MONTH WEEKDAY; '0 3 * * *' is three o'clock every night, in the "
        "cluster's time zone, and on Vertex AI 'TZ=Europe/Berlin 0 3 * * *' in Berlin's.",
        flag_values=values,
    )


def _run(values: flags.FlagValues, rest: Sequence[str]) -> int:
    _no_more(rest, "run")
    config = _config(values)
    name = config.name if values.run is None else values.run
    try:
        check_name(name)  # a run's name is a folder's name too
    except ValueError as error:
        raise ConfigError(f"--run={shown(name, 50)}: {error}") from None
    elsewhere = values.runner != "local"
    for flag in ("root", "in_process") if elsewhere else ("detach", "cron"):
        if values[flag].present:
            where = (
                f"this machine, not for --runner={values.runner}" if elsewhere else "clusters: --runner=kubeflow|vertex"
            )
            raise ConfigError(f"--{flag} is for {where}")
    _check(config, values.until, here=not elsewhere)
    if elsewhere:
        return _run_on_cluster(values, config, name)
    from lmworks.pipeline.closing import closing, go_on
    from lmworks.tfx.process import Stopped

    try:
        results = _execute(values, config, name, values.until, values.in_process)
    except (Stopped, KeyboardInterrupt):
        print(go_on(values), file=sys.stderr)
        raise
    for line in closing(values.root, name, results):
        print(line, file=sys.stderr, flush=True)
    print(f"{values.root.rstrip('/')}/{name}")
    return NOT_BLESSED if any(result.status == "skipped" for result in results) else DONE


def _run_on_cluster(values: flags.FlagValues, config: Config, name: str) -> int:
    if values.detach and values.cron is not None:
        raise ConfigError("--cron makes a schedule, which is not watched: leave --detach out")
    from lmworks.pipeline import submit

    if values.cron is not None:
        print(shown(submit.schedule(values.runner, config, name, values.cron, values.until)))
        return DONE
    try:
        run, stages = submit.submit(values.runner, config, name, values.until)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; whether the run was submitted is seen on the cluster") from None
    print(shown(run.link), flush=True)
    if values.detach:
        return DONE
    return DONE if submit.watch(run, stages, values.verbosity > 0) else NOT_BLESSED


def _define_compile(values: flags.FlagValues) -> None:
    _define_config(values)
    flags.DEFINE_enum("target", None, _TARGETS, "Where it is to run.", flag_values=values)
    flags.DEFINE_string("output", None, "The file to write, FILE.yaml.", flag_values=values)


def _compile(values: flags.FlagValues, rest: Sequence[str]) -> int:
    _no_more(rest, "compile")
    config = _config(values)
    if not values.target:
        raise ConfigError(f"--target is missing; it is one of {', '.join(_TARGETS)}")
    if not values.output or not values.output.endswith((".yaml", ".yml")):
        raise ConfigError(f"--output={values.output or ''}: must be FILE.yaml, the file to write")
    output = Path(values.output)
    if not output.parent.is_dir():
        raise ConfigError(f"--output={output}: there is no folder {output.parent}")
    _check(config, here=False)
    from lmworks.pipeline.submit import compile_for

    compile_for(values.target, config, output)
    print(output)
    return DONE


def _define_runs(values: flags.FlagValues) -> None:
    _define_root(values)
    flags.DEFINE_boolean(
        "follow",
        False,
        "With NAME: show its stages as they end and how far the running one is, until the run ends; the exit code is "
        "that of the run, which is 130 if it was stopped, and 1 if its process died.",
        flag_values=values,
    )
    flags.DEFINE_boolean("json", False, "As JSON: a list of runs, or with NAME that run.", flag_values=values)


def _runs(values: flags.FlagValues, rest: Sequence[str]) -> int:
    from lmworks.tfx import run_views, runs
    from lmworks.tfx.colours import Paint

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    remote = _remote(values, write=False)
    root = remote.mirror if remote else Path(values.root)
    if remote:
        remote.look_at_runs()
    store = f"{remote.url}/store" if remote else ""
    if values.follow and values.json:
        raise ConfigError("--follow shows lines and no JSON: leave --json out")
    if rest:
        _no_more(rest[1:], "runs")
        folders = {folder.name: folder for folder in runs.folders(root)}
        if rest[0] not in folders:
            known = ", ".join(sorted(folders)) or "none"
            raise ConfigError(f"{values.root}: has no run {shown(repr(rest[0]), 80)}; known: {known}")
        folder = folders[rest[0]]
        if values.follow:
            return _follow(folder, remote)
        if values.json:
            print(json.dumps(run_views.as_json(folder, runs.read_record(folder), store), indent=2))
        else:
            print(run_views.show(folder, store, width and width - 1, Paint(sys.stdout)))
        return DONE
    if values.follow:
        raise ConfigError("--follow needs a run's name: lmworks runs NAME --follow")
    records = runs.readable(root)
    if values.json:
        print(json.dumps([run_views.as_json(folder, record, store) for folder, record in records], indent=2))
    elif lines := run_views.table(records, width, Paint(sys.stdout)):
        print("\n".join(lines))
    elif not runs.folders(root):
        root_flag = [] if values.root == "runs" else [f"--root={values.root}"]
        command = shlex.join(["lmworks", "run", "--config=configs/tiny.yaml", *root_flag])
        print(f"{shown(values.root)}: no runs yet; {shown(command)} makes one", file=sys.stderr)
    return DONE


def _follow(folder: Path, remote: RemoteRoot | None) -> int:
    from lmworks.tfx import runs
    from lmworks.tfx.screen import Screen

    screen = Screen(sys.stdout, seconds=3.0)
    try:
        record = runs.follow(folder, screen, remote.look_at_runs if remote else None)
    except KeyboardInterrupt:  # the one who looks leaves; the run goes on
        screen.clear()
        return INTERRUPTED
    if record["status"] != "done":
        print(shown(runs.end(folder, record), lines=True), file=sys.stderr)
        return INTERRUPTED if record["status"] == "stopped" else FAILED
    return NOT_BLESSED if runs.status(record) == "refused" else DONE


def _define_board(values: flags.FlagValues) -> None:
    _define_root(values)
    flags.DEFINE_integer("port", 6006, "Where to serve.", 1, 65535, flag_values=values)
    flags.DEFINE_string("host", "localhost", "Address to serve at; 0.0.0.0 for all.", flag_values=values)


def _board(values: flags.FlagValues, rest: Sequence[str]) -> int:
    _no_more(rest, "board")
    from lmworks.tfx.board import serve

    root = Path(values.root)
    if remote := _remote(values, write=False):
        from lmworks.tfx.artifacts import Logs
        from lmworks.tfx.runs import readable

        root = remote.mirror
        remote.look_at_runs()
        try:
            remote.fetch_kind([run for run, _ in readable(root)], Logs.__name__)
        except UserError as error:
            print(f"{shown(error)}; what is not here is not shown", file=sys.stderr)
    serve(root, values.host, values.port)
    return DONE


def _define_gc(values: flags.FlagValues) -> None:
    _define_root(values)
    flags.DEFINE_boolean("yes", False, "Do not ask.", flag_values=values)
    flags.DEFINE_boolean(
        "state",
        False,
        "Also unfinished work that a run could go on from (checkpoints, linked as <run>/<stage>/live). Without it, only "
        "such as no run links. Never that of a run that works now.",
        flag_values=values,
    )


def _gc(values: flags.FlagValues, rest: Sequence[str]) -> int:
    _no_more(rest, "gc")
    from lmworks.tfx.gc import run, run_remote

    if remote := _remote(values):
        run_remote(remote, values.state, values.yes)
    else:
        run(Path(values.root), values.state, values.yes)
    return DONE


def _define_predict(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "servable", None, "The folder of a servable, of its run, or of a SavedModel.", flag_values=values
    )
    flags.DEFINE_multi_string(
        "text",
        [],
        "A text to classify, to continue, or to fill at its [MASK]; may be repeated. Without it, lines of stdin.",
        flag_values=values,
    )
    flags.DEFINE_multi_string("text_b", [], "The second text of a pair, as often as --text.", flag_values=values)
    flags.DEFINE_string(
        "input",
        None,
        "In place of texts: a table, by its suffix .csv, .tsv, .jsonl or .parquet; path or URL.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "output",
        None,
        "With --input: the table to write, with all columns of the input and the answers; as the input, or .jsonl.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "text_column",
        None,
        "With --input: the column with the text; when not given the one of the training, or `text`.",
        flag_values=values,
    )
    flags.DEFINE_string("text_b_column", None, "With --input: that of the second text of a pair.", flag_values=values)
    flags.DEFINE_boolean("overwrite", False, "With --input: replace --output if it is there.", flag_values=values)
    flags.DEFINE_integer("tokens", 128, "Causal models: most new tokens.", flag_values=values)
    flags.DEFINE_float("temperature", 0.0, "Causal models: 0 takes the likeliest token.", flag_values=values)
    flags.DEFINE_integer("top_k", 0, "Causal models: only the k likeliest tokens; 0 for all.", flag_values=values)
    flags.DEFINE_float(
        "top_p",
        1.0,
        "Causal models: only the likeliest tokens that together have this probability.",
        flag_values=values,
    )
    flags.DEFINE_integer("seed", 0, "Causal models: the same seed gives the same text.", flag_values=values)
    flags.DEFINE_multi_string(
        "stop", [], "Causal models: a string that ends the text; may be repeated.", flag_values=values
    )


def _predict(values: flags.FlagValues, rest: Sequence[str]) -> int:
    _no_more(rest, "predict")
    if not values.servable:
        raise ConfigError("--servable=DIR is missing; a run's is at <root>/<run>/export/servable")
    if values.input is not None and not values.output:
        raise ConfigError("--output=FILE is missing: the file that the answers of --input go into")
    from lmworks.pipeline.export.continuation import Wish
    from lmworks.pipeline.export.predict import Asked, Request, predict

    columns = {key: values[f"{key}_column"].value for key in ("text", "text_b") if values[f"{key}_column"].value}
    file = Request(values.input, Path(values.output), columns, values.overwrite) if values.input else None
    wish = Wish(values.tokens, values.temperature, values.top_k, values.top_p, values.seed, tuple(values.stop))
    present = [name for name in values if values[name].present]
    return DONE if predict(Asked(values.servable, values.text, values.text_b, file, wish, present)) else FAILED


def _schema(values: flags.FlagValues, rest: Sequence[str]) -> int:
    _no_more(rest, "schema")
    from lmworks.configs.json_schema import json_schema

    print(json.dumps(json_schema(), indent=2))
    return DONE


def _completion(values: flags.FlagValues, rest: Sequence[str]) -> int:
    from lmworks.configs.load import paths_of
    from lmworks.pipeline import completion

    if len(rest) != 1 or rest[0] not in completion.SHELLS:
        raise ConfigError(f"name a shell, {', '.join(completion.SHELLS)}: source <(lmworks completion bash)")
    commands = {}
    for name, (_, _, about) in _COMMANDS.items():
        known = _flags_of(name)
        commands[name] = completion.Command(
            about.partition(":")[0],
            [
                completion.Flag(
                    flag,
                    str(known[flag].help),
                    [str(value) for value in getattr(known[flag].parser, "enum_values", None) or ()],
                    bool(known[flag].boolean),
                )
                for flag in sorted(known)
                if flag == known[flag].name
            ],
        )
    print(completion.script(rest[0], commands, list(paths_of(Config))), end="")
    return DONE


def _define_preview(values: flags.FlagValues) -> None:
    _define_root(values)
    _define_config(values)
    flags.DEFINE_integer("rows", 3, "How many sequences to show.", lower_bound=1, flag_values=values)


def _preview(values: flags.FlagValues, rest: Sequence[str]) -> int:
    _no_more(rest, "preview")
    config = _config(values)
    from rich.console import Console

    from lmworks.pipeline.preview import preview
    from lmworks.tfx.artifacts import Sequences, read

    if _is_url(values.root):
        raise ConfigError(f"--root={values.root}: a preview needs a root of this machine, a folder")
    _check(config, "preprocess")
    name = f"{config.name}-preview"
    _execute(values, config, name, "preprocess")
    console = Console(highlight=False, soft_wrap=True)
    for line in preview(config, read(Sequences, Path(values.root) / name / "preprocess" / "sequences"), values.rows):
        console.print(line)
    return DONE


_Command = tuple[Callable[[flags.FlagValues], Any], Callable[[flags.FlagValues, Sequence[str]], int], str]
_COMMANDS: dict[str, _Command] = {
    "run": (_define_run, _run, "run a pipeline: lmworks run --config=configs/sentiment.yaml"),
    "compile": (
        _define_compile,
        _compile,
        "for a cluster: lmworks compile --config=FILE --target=kubeflow --output=FILE.yaml",
    ),
    "preview": (_define_preview, _preview, "what the model will see: lmworks preview --config=configs/tiny.yaml"),
    "runs": (_define_runs, _runs, "list runs, or one run's stages: lmworks runs [NAME] [--follow] [--json]"),
    "board": (_define_board, _board, "TensorBoard over live and finished runs: lmworks board --root=runs"),
    "gc": (_define_gc, _gc, "remove from the store what no run links, after asking: lmworks gc --root=runs"),
    "predict": (_define_predict, _predict, "answers to texts: lmworks predict --servable=runs/tiny --text='…'"),
    "schema": (lambda values: None, _schema, "JSON schema of a config, for editors"),
    "completion": (
        lambda values: None,
        _completion,
        "completion for a shell: source <(lmworks completion bash); also zsh, fish",
    ),
}

_OTHER_COMMANDS = {
    **dict.fromkeys(("train", "fit", "start", "finetune", "evaluate", "eval", "export", "resume"), "run"),
    **dict.fromkeys(("list", "ls", "ps", "status", "log", "logs"), "runs"),
    **dict.fromkeys(("infer", "inference", "generate", "classify", "serve"), "predict"),
    **dict.fromkeys(("clean", "prune", "rm", "delete"), "gc"),
    "tensorboard": "board",
    "show": "preview",
    "build": "compile",
    "keys": "schema",
}
"""What other programs call our commands."""


if __name__ == "__main__":
    entry()
