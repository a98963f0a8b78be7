"""What a process of ours takes from its surroundings, and what it shuts out: called at the start of each, by `settle`.

The person's folder, locale and environment are made for other programs. Modules come from the installation (`python -P`), text is
UTF-8 as Python 3.15 has it (PEP 686), the settings of Keras are those of the recipe, and streams that are closed, full or read no
longer end no work.
"""

from __future__ import annotations

import codecs
import errno
import io
import locale
import os
import sys
from typing import TextIO

from lmworks.configs.errors import UserError
from lmworks.tfx import process, tensorflow_logs
from lmworks.tfx.personal_cache import personal_cache

_IGNORED = ("TF_USE_LEGACY_KERAS", "PYTHONWARNINGS", "PYTHONOPTIMIZE")
"""Variables that break libraries: Keras 2 is not installed, warnings are theirs, and tensorflow-text needs its docstrings."""


def settle(module: str, answers: bool) -> None:
    """Makes the surroundings of this process those that the libraries are made for; call it before they are imported.

    If Python itself was started with settings that cannot be changed any more (a locale without UTF-8, warnings as errors, no
    docstrings), it starts anew in the same process.

    Args:
        module: Name of the one with which this process was started.
        answers: Whether standard output is what the process is for. Then it ends if nobody reads on, and fails if nothing can be
            written; else it works on.

    Raises:
        UserError: The working directory was removed.
    """
    keras = [name for name in os.environ if name.startswith("KERAS_")]
    ignored = {name for name in (*_IGNORED, *keras) if os.environ.pop(name, "")}
    # Keras reads it even where no stage has chosen its backend yet: tensorflow-text imports Keras.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ["KERAS_HOME"] = _keras_home()
    _open_streams(answers)
    os.environ["PYTHONUTF8"] = "1"  # in child processes
    is_utf8 = sys.flags.utf8_mode or codecs.lookup(locale.getencoding()).name == "utf-8"
    if not is_utf8 or sys.flags.optimize > 1 or "PYTHONWARNINGS" in ignored:
        command, *arguments = process.python(module, *sys.argv[1:])
        os.execv(command, [command, "-X", "utf8", *arguments])
    output = _Answers(1) if answers else _Messages(1)
    sys.stdout, sys.stderr = _text(sys.stdout, output), _text(sys.stderr, _Messages(os.dup(2)))
    tensorflow_logs.quiet()
    try:
        here = os.getcwd()
    except OSError:
        raise UserError("the working directory was removed; change to another folder") from None
    if not sys.flags.safe_path and sys.path[0] in ("", here):  # `python -m` puts it there
        del sys.path[0]


def _keras_home() -> str:
    """A folder without a `keras.json` that a person has written: it sets the precision and the epsilon of all layers."""
    try:
        return str(personal_cache() / "keras")
    except UserError:
        return f"{os.devnull}/keras"  # where none is read and none can be written


def working_directory_last() -> None:
    """Lets modules of the person's own be imported from the working directory, where no installed one has the name."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def _open_streams(answers: bool) -> None:
    """Opens what was closed (`>&-`) on nothing, before a file of ours gets its number and with it what libraries print.

    Args:
        answers: Whether standard output is what the process is for; then it stays one that cannot be written.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            mode = os.O_RDONLY if answers and number == 1 else os.O_RDWR
            os.set_inheritable(os.open(os.devnull, mode), True)  # takes the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))  # noqa: SIM115


def _text(stream: TextIO, raw: io.RawIOBase) -> TextIO:
    """A stream that takes any text: what a terminal's encoding lacks is escaped, and elsewhere text is UTF-8."""
    is_known = stream.isatty() and codecs.lookup(locale.getencoding()).name != "ascii"
    encoding = locale.getencoding() if is_known else "utf-8"
    live = isinstance(raw, _Messages) or stream.isatty()
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, "backslashreplace", line_buffering=live)


class _Answers(io.FileIO):
    """Standard output: that nobody reads on ends the command, and that it takes nothing is said in one line."""

    def __init__(self, number: int) -> None:
        super().__init__(number, "w", closefd=False)
        self._lost = False

    def write(self, data: object) -> int:
        if self._lost:
            return len(data)  # type: ignore[arg-type]
        try:
            return super().write(data)  # type: ignore[arg-type]
        except OSError as error:
            self._lost = True
            if error.errno == errno.EPIPE:
                raise SystemExit(0) from None
            reason = "it is closed" if error.errno == errno.EBADF else error.strerror
            raise UserError(f"standard output cannot be written: {reason}") from None


class _Messages(io.FileIO):
    """A stream beside the work, which does not end where it takes nothing."""

    def __init__(self, number: int) -> None:
        super().__init__(number, "w", closefd=False)

    def write(self, data: object) -> int:
        try:
            return super().write(data)  # type: ignore[arg-type]
        except OSError:
            return len(data)  # type: ignore[arg-type]
