"""SentencePiece as Llama 2, Mistral and Gemma have it: the library for the data stage, the same library in the served graph.

Both run it (Kudo and Richardson 2018, arXiv:1808.06226) on the checkpoint's `tokenizer.model`; `tensorflow_text` holds it for
the graph. (Its resource dies whenever a seed is set in the same process, so it is no tokenizer outside a graph.) Pieces say
`▁` for a blank; where the model asks for it, a text gets a blank before it; characters without a piece become their bytes,
`<0xE4>`, or the unknown token. Special tokens spelled out in a text stay plain text on purpose: those that the checkpoint calls
special are control symbols here, which the library never reads.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as protocol

from lmworks.configs.errors import UserError
from lmworks.models.document_ends import SETTINGS, Ends
from lmworks.models.json_files import check_size, read_object, understanding
from lmworks.models.keras_hub_families import SENTENCEPIECE_SPECIAL, sentencepiece_ends
from lmworks.models.tokenizer import SENTENCEPIECE_FILES, Kind, detokenize
from lmworks.models.vocabulary import tokens_by_id

if TYPE_CHECKING:
    import tensorflow as tf

_BLANK = "▁"
_Piece = protocol.ModelProto.SentencePiece
_OF_TEXT = (_Piece.NORMAL, _Piece.BYTE, _Piece.UNKNOWN)
# A blank after something else, a new line beside it: such a piece would reach across the borders at which texts are cut.
_REACHES = re.compile(f"[^{_BLANK}]{_BLANK}|[^\n]\n|\n[^\n]")


class SentencePiece:
    """A SentencePiece model.

    Args:
        proto: its file.
        ends: tokens around a document; the model's own when not given.
        special: tokens that no text gives and that stand for no text, beside its control symbols.

    Attributes:
        begin_id: stands before a document.
        end_id: ends it.
        end_ids: end a generated text.
        border_ids: stand between two documents.
    """

    kind: Kind = "sentencepiece"

    def __init__(self, proto: bytes, ends: Ends | None = None, special: Iterable[str] = ()) -> None:
        model = protocol.ModelProto.FromString(proto)
        self.vocabulary = [one.piece for one in model.pieces]
        self.vocabulary_size = len(self.vocabulary)
        self._index = {token: index for index, token in enumerate(self.vocabulary)}
        self.ends = ends or _own_ends(model)
        lacks = next((token for token in self.ends.names if token not in self._index), None)
        if lacks:
            raise UserError(f"the tokenizer's vocabulary lacks {lacks}")
        for token in {*special, *self.ends.names} & self._index.keys():
            model.pieces[self._index[token]].type = _Piece.CONTROL
        self.proto = model.SerializeToString()
        self._first = sentencepiece.SentencePieceProcessor(model_proto=self.proto)
        self._prefixed = bool(model.normalizer_spec.add_dummy_prefix)
        self._collapses = bool(model.normalizer_spec.remove_extra_whitespaces)
        self._reaches = any(_REACHES.search(token) for token in self.vocabulary)
        # What goes on within a text has no blank before it.
        model.normalizer_spec.add_dummy_prefix = False
        self._later = sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())
        self.end_id, self.begin_id = self._index[self.ends.end], self._index[self.ends.begin or self.ends.end]
        self.pad_id = self.end_id
        self.end_ids, self.border_ids = (
            tuple(self._index[token] for token in tokens)
            for tokens in ((self.ends.end, *self.ends.stops), self.ends.border)
        )
        self.token_bytes = [_bytes(one, model.trainer_spec.unk_surface) for one in model.pieces]

    @classmethod
    def from_folder(cls, folder: Path) -> SentencePiece:
        """Opens a folder in Hugging Face or KerasHub format.

        Raises:
            UserError: there is no such file, or it is none.
        """
        path = next((folder / name for name in SENTENCEPIECE_FILES if (folder / name).exists()), None)
        if path is None:
            raise UserError(f"{folder}: has no tokenizer.model")
        check_size(path)
        try:
            proto = path.read_bytes()
            model = protocol.ModelProto.FromString(proto)
            if not proto:
                raise ValueError("it is empty")
            sentencepiece.SentencePieceProcessor(model_proto=proto)  # what protobuf takes may still be no vocabulary
        except Exception as error:  # protobuf's own error has no public name
            raise UserError(f"{path}: is no SentencePiece model: {' '.join(str(error).split())[:200]}") from error
        own, ids = _own_ends(model), {one.piece: index for index, one in enumerate(model.pieces)}
        if path.name == "tokenizer.model":
            settings_path = folder / SETTINGS
            settings = read_object(settings_path)
            with understanding(settings_path):
                added = settings.get("added_tokens_decoder", {})
                _add(model, {int(index): one["content"] for index, one in added.items()}, settings_path)
                ids = {one.piece: index for index, one in enumerate(model.pieces)}
                ends = Ends.of_folder(folder, ids, own.end, {}, own.begin)
                special = [one["content"] for one in added.values() if one["special"]]
            return cls(model.SerializeToString(), ends, special)
        special = [token for token in SENTENCEPIECE_SPECIAL if token in ids]
        described = read_object(folder / "tokenizer.json")
        with understanding(folder / "tokenizer.json"):
            return cls(proto, sentencepiece_ends(described["class_name"], own, ids), special)

    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """What `encode` gives: string [batch] to ragged int32 [batch, (tokens)]; works inside a graph."""
        import tensorflow as tf

        return self.resource.tokenize(tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace"))

    @functools.cached_property
    def resource(self) -> Any:
        """What a module must hold whose graph tokenises."""
        import tensorflow_text as tf_text

        return tf_text.SentencepieceTokenizer(self.proto)

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token ids of each text, int32 [tokens], without special ones; on all cores, outside any graph."""
        return _rows(self._first, texts)

    def encode_parts(self, documents: Sequence[Sequence[str]]) -> list[list[np.ndarray]]:
        """Token ids of texts that are cut at line ends or before blanks: of each part, int32 [tokens].

        A text whose pieces could reach across is not cut.
        """
        if self._reaches or self._collapses:
            return [self._of_whole(document) for document in documents]
        first = iter(_rows(self._first, [document[0] for document in documents if document]))
        later = iter(_rows(self._later, [part for document in documents for part in document[1:]]))
        return [[next(first), *(next(later) for _ in document[1:])] if document else [] for document in documents]

    def _of_whole(self, document: Sequence[str]) -> list[np.ndarray]:
        """Parts' tokens, each token with the part in which it begins."""
        found = self._first.encode("".join(document), out_type="proto").pieces
        ids, starts = (np.array([getattr(one, name) for one in found], np.int32) for name in ("id", "begin"))
        borders = np.cumsum([len(part) for part in document])[:-1]  # offsets are in characters
        return np.split(ids, np.searchsorted(starts, borders))

    def decode(self, token_ids: Iterable[int]) -> str:
        """The text of ids, without the blank that was put before it; bytes that are no UTF-8 become U+FFFD."""
        text = self.continuation(token_ids)
        return text.removeprefix(" ") if self._prefixed else text

    def continuation(self, token_ids: Iterable[int]) -> str:
        """What ids add to a text that stands before them."""
        return b"".join(self.token_bytes[index] for index in token_ids).decode("utf-8", "replace")

    def detokenize(self, token_ids: tf.RaggedTensor) -> tf.Tensor:
        """What `continuation` gives: ragged int32 [batch, (tokens)] to string [batch]; works inside a graph."""
        return detokenize(self.token_bytes, token_ids)

    def keras_hub_tokenizer(self, kind: Any) -> Any:
        """KerasHub's own tokenizer.

        Args:
            kind: its class.

        Raises:
            ValueError: it insists on special tokens that this vocabulary does not have.
        """
        extra = {"has_vision_tokens": False} if kind.__name__ == "Gemma3Tokenizer" else {}
        return kind(self.proto, **extra)

    def save(self, folder: Path) -> None:
        """Writes it in Hugging Face's format: tokenizer.model and the files of special tokens."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / SENTENCEPIECE_FILES[0]).write_bytes(self.proto)
        kind = "LlamaTokenizer" if self._prefixed else "GemmaTokenizer"
        self.ends.save(folder, {"tokenizer_class": kind, "legacy": True}, self._index)


def _rows(processor: Any, texts: Sequence[str]) -> list[np.ndarray]:
    return [np.array(ids, np.int32) for ids in processor.encode(list(texts), num_threads=os.cpu_count() or 1)]


def _add(model: Any, added: dict[int, str], origin: Path) -> None:
    """Gives a model the tokens that a checkpoint adds, as control symbols: Phi-3's stand beyond the ids of its file.

    Args:
        model: the `ModelProto`, which is changed.
        added: tokens by their ids.
        origin: the file that names them.

    Raises:
        UserError: an id is that of a piece of text, or a token has another id in the model.
    """
    own = {one.piece: index for index, one in enumerate(model.pieces)}
    size = len(model.pieces)
    named = tokens_by_id({token: index for index, token in added.items()}, origin)[0] if added else []
    for index, token in sorted(added.items()):
        piece = model.pieces[index] if index < size else None
        if own.get(token, index) != index or (piece and piece.piece != token and piece.type in _OF_TEXT):
            theirs = f"{own[token]} in" if token in own else f"which is {piece.piece!r} in"  # type: ignore[union-attr]
            raise UserError(f"{origin}: added token {token!r} has the id {index}, {theirs} tokenizer.model")
        if piece and piece.piece != token:
            piece.piece = token
    for token in named[size:]:
        model.pieces.add(piece=token, score=0.0, type=_Piece.CONTROL)


def _own_ends(model: Any) -> Ends:
    """What the model itself calls the beginning and the end."""
    names, trainer = [one.piece for one in model.pieces], model.trainer_spec
    begin = names[trainer.bos_id] if 0 <= trainer.bos_id < len(names) else None
    return Ends(names[trainer.eos_id] if 0 <= trainer.eos_id < len(names) else trainer.eos_piece, begin)


def _bytes(one: Any, unknown: str) -> bytes:
    if one.type == _Piece.CONTROL:
        return b""
    if one.type == _Piece.BYTE:
        return bytes([int(one.piece[3:5], 16)])
    return (unknown if one.type == _Piece.UNKNOWN else one.piece.replace(_BLANK, " ")).encode()
