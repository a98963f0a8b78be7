"""The command `predict`: what a servable answers to texts, to lines of stdin, or to the rows of a file."""

from __future__ import annotations

import codecs
import io
import json
import sys
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

from lmworks.configs.errors import ConfigError
from lmworks.configs.shown import shown
from lmworks.pipeline.export.answers import Answering, Continuer, GraphError, Refusal, Texts, answering, task_of
from lmworks.pipeline.export.continuation import Wish
from lmworks.pipeline.export.servable_folder import ServableFolder, find_servable, load_servable
from lmworks.pipeline.export.text_files import ERROR, Count, Request, answer_file, check_request
from lmworks.pipeline.export.text_lines import answer_lines, rows_of_flags, rows_of_lines
from lmworks.tfx.process import interrupt_on_sigterm

SAMPLING = ("tokens", "temperature", "top_k", "top_p", "seed", "stop")
"""Flags that say how a causal language model continues."""
_TASKS = {
    "text_classification": "a text classifier",
    "masked_lm": "a masked language model",
    "causal_lm": "a causal language model",
}


class Asked(NamedTuple):
    """What the command line says."""

    servable: str
    texts: Sequence[str] = ()
    texts_b: Sequence[str] = ()
    file: Request | None = None
    wish: Wish = Wish()
    present: Collection[str] = ()
    """Flags that were written, whatever their values."""


class Predictor:
    """A servable and what is asked of it; what does not fit it is refused as early as it is known.

    Args:
        asked: what the command line says.

    Raises:
        ConfigError: flags that do not fit each other, or the servable, or there is none.
    """

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        _check_flags(asked)
        if asked.file:
            check_request(asked.file)
        self._folder: ServableFolder = find_servable(asked.servable)
        self._model: Answering | None = None
        if self._folder.task is not None:
            self._check_fit(self._folder.task, bool(self._folder.is_pair))

    def model(self) -> Answering:
        """Loads the servable, which takes seconds."""
        if self._model is None:
            signatures = load_servable(self._folder.path).signatures
            serving_default = signatures.get("serving_default")
            if serving_default is None or "text" not in serving_default.structured_input_signature[1]:
                raise ConfigError(
                    f"--servable={self._folder.path}: its signature serving_default takes no text: it is no servable of lmworks"
                )
            self._model = answering(signatures, self._folder.labels, self._asked.wish)
            self._check_fit(task_of(signatures), self._model.is_pair)
        return self._model

    def answer_file(self) -> Count:
        """Answers the rows of the file that was named."""
        request = self._asked.file
        assert request is not None
        is_pair = self._folder.is_pair
        keys = ("text", "text_b") if (self.model().is_pair if is_pair is None else is_pair) else ("text",)
        preferred = {}
        for key in keys:
            known = self._folder.column(key)
            preferred[key] = (
                [request.columns[key]] if key in request.columns else list(dict.fromkeys([known or key, key]))
            )
        return answer_file(request, preferred, self.model)

    def answer_lines(self) -> Iterator[dict[str, Any]]:
        """Answers the texts, or the lines of stdin: what is to be printed, one object a line."""
        return answer_lines(self.model(), self._rows(), at_once=not self._asked.texts and sys.stdin.isatty())

    def continue_lines(self) -> Iterator[str | Refusal]:
        """Continues the texts, or the lines of stdin, piece by piece, or says why not, for a person who reads as it comes."""
        model = self.model()
        assert isinstance(model, Continuer)
        for row in self._rows():
            if isinstance(row, Refusal):
                yield row
                continue
            yield row[0]
            try:
                yield from model.pieces(row[0])
            except GraphError as error:
                yield Refusal(str(error))
            yield "\n"

    def _rows(self) -> Iterator[Texts | Refusal]:
        if self._asked.texts:
            return rows_of_flags(self._asked.texts, self._asked.texts_b)
        if sys.stdin.isatty():
            end = "a text a line" if not self.model().is_pair else "two texts with a tab between a line"
            print(f"predict: {end}; Ctrl-D ends", file=sys.stderr, flush=True)
        return rows_of_lines(sys.stdin.buffer, self.model().is_pair)

    def _check_fit(self, task: str, is_pair: bool) -> None:
        kind = _TASKS.get(task, task)
        where = self._asked.servable
        if task != "causal_lm" and (flags := [name for name in SAMPLING if name in self._asked.present]):
            raise ConfigError(f"--{flags[0]} is for causal language models, and {where} is {kind}; leave it out")
        second = [name for name in ("text_b", "text_b_column") if name in self._asked.present]
        if second and not is_pair:
            raise ConfigError(f"--{second[0]} is the second text of a pair, and {where} takes one text; leave it out")
        if is_pair and self._asked.texts and not self._asked.texts_b:
            raise ConfigError(f"{where} takes pairs: give --text_b too")
        file = self._asked.file
        if task == "causal_lm" and file and file.output.suffix.lower() in (".tsv", ".tab"):
            raise ConfigError(
                f"--output={file.output}: tsv has no quotes, and a continuation has line ends; write .jsonl"
            )


def _check_flags(asked: Asked) -> None:
    """Refuses flags that do not go together."""
    if asked.texts_b and len(asked.texts_b) != len(asked.texts):
        times = f"--text_b is given {len(asked.texts_b)} times and --text {len(asked.texts)} times"
        raise ConfigError(f"{times}; they go in pairs")
    if asked.file and asked.texts:
        raise ConfigError("--text and --input do not go together: texts come from one of them")
    alone = [name for name in ("output", "text_column", "text_b_column", "overwrite") if name in asked.present]
    if alone and not asked.file:
        raise ConfigError(f"--{alone[0]} belongs to --input=FILE, which is missing")
    if not asked.file and not asked.texts and sys.stdin is None:
        raise ConfigError("stdin is closed; give --text=… or --input=FILE")


def predict(asked: Asked) -> bool:
    """Prints what a servable answers, or writes it into a file.

    Args:
        asked: what the command line says.

    Returns:
        Whether every row has an answer.

    Raises:
        ConfigError: flags that do not fit each other, or the servable.
        UserError: no servable, or a file that cannot be read.
    """
    try:
        predictor = Predictor(asked)
        if asked.file:
            interrupt_on_sigterm()  # takes the draft away
            return _say(asked.file, predictor.answer_file())
        is_terminal = sys.stdout.isatty()
        if is_terminal and isinstance(predictor.model(), Continuer):
            return _print_pieces(predictor.continue_lines())
        return _print_lines(predictor.answer_lines(), is_terminal)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; the same command begins anew") from None


def _print_pieces(pieces: Iterator[str | Refusal]) -> bool:
    complete = True
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # what the terminal's encoding lacks
    for piece in pieces:
        complete &= isinstance(piece, str)
        print(f"[{piece.reason}]\n" if isinstance(piece, Refusal) else _for_terminal(piece), end="", flush=True)
    return complete


def _print_lines(lines: Iterator[dict[str, Any]], is_terminal: bool) -> bool:
    complete = True
    # JSON says what the output's encoding lacks by escapes.
    is_utf8 = codecs.lookup(sys.stdout.encoding or "utf-8").name == "utf-8"
    for line in lines:
        complete &= "error" not in line
        text = json.dumps(line, ensure_ascii=not is_utf8)
        print(_for_terminal(text) if is_terminal else text, flush=True)
    return complete


def _for_terminal(text: str) -> str:
    """A text, however long, without what commands a terminal: the model may be somebody else's."""
    return shown(text, sys.maxsize, lines=True)


def _say(file: Request, count: Count) -> bool:
    print(file.output)
    if count.errors:
        share = f"{count.errors:,} of {count.rows:,} rows have no answer (column {ERROR})"
        print(f"predict: {share}; the first: {shown(count.first_error)}", file=sys.stderr, flush=True)
    return not count.errors
