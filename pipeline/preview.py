"""What the model will see: the first training sequences, token by token, with borders, targets, loss mask and truncation."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.text import Text

from lmworks.configs.schema import Config
from lmworks.configs.shown import shown
from lmworks.models.backend import use_backend
from lmworks.tfx.artifacts import Sequences

if TYPE_CHECKING:
    from lmworks.models.wordpiece import WordPiece

_EVEN, _ODD, _SPECIAL, _TARGET, _NO_LOSS = "cyan", "green", "bold yellow", "bold magenta", "dim"


def preview(config: Config, sequences: Sequences, rows: int) -> Iterator[Text]:
    """Yields lines to print.

    Args:
        config: of the run.
        sequences: its training split is shown.
        rows: how many sequences.
    """
    use_backend("tensorflow")
    show = {"text_classification": _classified, "causal_lm": _causal, "masked_lm": _masked}[config.task]
    yield from show(config, sequences, rows)


def _token(piece: str, style: str) -> Text:
    visible = piece.replace("\n", "⏎\n").replace("\t", "→\t")
    return Text(shown(visible, sys.maxsize, lines=True), style=style)


def _heading(text: str) -> Text:
    return Text(f"── {shown(text)} ", style="bold")


def _classified(config: Config, sequences: Sequences, rows: int) -> Iterator[Text]:
    from lmworks.models.wordpiece import WordPiece
    from lmworks.pipeline.sequences import SequenceTable

    table = SequenceTable(sequences, "train")
    pieces = WordPiece.from_folder(sequences.path / "tokenizer")
    labels, most = sequences.properties["labels"], sequences.properties["sequence_length"]
    for row in range(min(rows, len(table))):
        inputs = table.batch(_index(row)).inputs
        length = int(table.lengths[row])
        cut = ", at the longest: its end may be cut" if length == most else ""
        yield _heading(f"row {row}: label {labels[table.labels[row]]}, {length} tokens of {most}{cut}")
        line = Text()
        for index, segment in zip(inputs["token_ids"][0], inputs["segment_ids"][0], strict=True):
            special = index not in pieces.ordinary_ids
            line += _token(pieces.vocabulary[index], _SPECIAL if special else _ODD if segment else _EVEN) + Text(" ")
        yield line
    yield _legend(("first text", _EVEN), ("second text", _ODD), ("special", _SPECIAL))


def _causal(config: Config, sequences: Sequences, rows: int) -> Iterator[Text]:
    from lmworks.models.tokenizer import open_causal_pieces
    from lmworks.pipeline.packing import DocumentTable, Packing

    table = DocumentTable(sequences, "train")
    pieces = open_causal_pieces(sequences.path / "tokenizer")
    length = int(sequences.properties["sequence_length"])
    packing = Packing(table.lengths, length, config.train.seed, 0, pieces.border_ids)
    yield _heading(f"{packing.sequences:,} sequences of {length} in an epoch, {packing.tokens:,} tokens")
    for row in packing.sequence_order[:rows]:
        begin, end = packing.span(int(row))
        stream = packing.read(table, begin - 1, end)
        learnt = packing.read_targets(table, begin, end).tolist()
        padding = length - (end - begin)
        told = f", {padding} of padding without loss" if padding else ""
        yield _heading(
            f"sequence {row}: tokens {begin:,} to {end:,} of the epoch, {sum(learnt):,} of them targets{told}"
        )
        line = Text()
        for place, index in enumerate(stream.tolist()):
            if index in pieces.border_ids:
                last = "\n" if index == pieces.border_ids[-1] else ""
                line += _token(pieces.vocabulary[index] + last, _SPECIAL if place and learnt[place - 1] else _NO_LOSS)
            else:
                style = (_EVEN, _ODD)[place % 2] if place and learnt[place - 1] else _NO_LOSS
                piece = pieces.token_bytes[index].decode("utf-8", "replace")
                line += _token(piece, style) if piece else _token(pieces.vocabulary[index], _SPECIAL)
        yield line
    yield _legend(("targets, each given the tokens before it", f"{_EVEN}"), ("", _ODD), ("document border", _SPECIAL),
                  ("read only, no target", _NO_LOSS))  # fmt: skip


def _masked(config: Config, sequences: Sequences, rows: int) -> Iterator[Text]:
    from lmworks.models.wordpiece import WordPiece
    from lmworks.pipeline.masking import MaskedRows
    from lmworks.pipeline.packing import DocumentTable, Packing

    table = DocumentTable(sequences, "train")
    pieces: WordPiece = WordPiece.from_folder(sequences.path / "tokenizer")
    length = int(sequences.properties["sequence_length"])
    train = config.train
    packing = Packing(table.lengths, length - 2, train.seed, 0, (pieces.sep_id,))
    chosen = packing.sequence_order[:rows]
    masking = MaskedRows(pieces, length, train.mask_ratio, train.whole_word)
    inputs = masking.batch(table, packing, chosen, [train.seed, 0])
    yield _heading(f"{packing.sequences:,} sequences of {length} in an epoch, masks of the first epoch")
    for place, row in enumerate(chosen):
        count = int(inputs["weights"][place].sum())
        targets = dict(zip(inputs["positions"][place, :count], inputs["targets"][place, :count], strict=True))
        yield _heading(f"sequence {row}: {count} targets among {int(inputs['padding_mask'][place].sum())} tokens")
        line = Text()
        for position, index in enumerate(inputs["token_ids"][place]):
            if not inputs["padding_mask"][place, position]:
                break
            piece = pieces.vocabulary[index]
            if position in targets:
                line += _token(
                    f"{piece}≠{pieces.vocabulary[targets[position]]}" if index != targets[position] else piece, _TARGET
                )
            else:
                line += _token(piece, _EVEN if index in pieces.ordinary_ids else _SPECIAL)
            line += Text(" ")
        yield line
    yield _legend(("shown", _EVEN), ("target: what is shown ≠ what is asked", _TARGET), ("special", _SPECIAL))


def _legend(*entries: tuple[str, str]) -> Text:
    line = Text("\n")
    for name, style in entries:
        line += Text("■ ", style=style) + Text(f"{name}  " if name else "")
    return line


def _index(row: int) -> Any:
    import numpy as np

    return np.array([row])
