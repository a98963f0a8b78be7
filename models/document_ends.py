"""What stands before a document and what ends it: names of special tokens, as a checkpoint's files tell them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lmworks.models.json_files import read_object

SETTINGS, GENERATION = "tokenizer_config.json", "generation_config.json"


class Ends(NamedTuple):
    """Special tokens around a document."""

    end: str
    """Ends a document, and generation."""
    begin: str | None = None
    """Stands before a document; where a model has none, the end of the document before does."""
    stops: tuple[str, ...] = ()
    """End generation too."""

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return (self.end, *([self.begin] if self.begin else []), *self.stops)

    @property
    def border(self) -> tuple[str, ...]:
        """What stands between two documents."""
        return (self.end, self.begin) if self.begin and self.begin != self.end else (self.end,)

    @classmethod
    def of_folder(
        cls,
        folder: Path,
        pieces: Mapping[str, int],
        default_end: str,
        post_processor: Mapping[str, Any],
        default_begin: str | None = None,
    ) -> Ends:
        """Reads `tokenizer_config.json` and `generation_config.json`, where a folder has them.

        Args:
            folder: in Hugging Face format.
            pieces: the vocabulary.
            default_end: where the files name none that is known.
            post_processor: of a `tokenizer.json`, which may add a token before a text.
            default_begin: stands before a text where the files do not say.
        """
        settings, generation = read_object(folder / SETTINGS), read_object(folder / GENERATION)
        named = {name: _content(settings.get(f"{name}_token")) for name in ("bos", "eos")}
        end = named["eos"] or default_end
        end = end if end in pieces else default_end
        begin = _first_added(post_processor)
        if begin is None and settings.get("add_bos_token", default_begin is not None):
            begin = named["bos"] or default_begin
        ids = generation.get("eos_token_id") or []
        by_id = {index: token for token, index in pieces.items()}
        stops = [by_id[one] for one in (ids if isinstance(ids, list) else [ids]) if one in by_id]
        return cls(end, begin if begin in pieces else None, tuple(token for token in stops if token != end))

    def save(self, folder: Path, settings: dict[str, Any], ids: Mapping[str, int]) -> None:
        """Writes what `of_folder` reads.

        Args:
            folder: exists.
            settings: what else `tokenizer_config.json` says.
            ids: of the tokens.
        """
        special = {"bos_token": self.begin or self.end, "eos_token": self.end, "unk_token": self.end}
        if self.begin:
            settings = {**settings, "add_bos_token": True}
        (folder / SETTINGS).write_text(json.dumps({**settings, **special}, indent=1), encoding="utf-8")
        (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=1), encoding="utf-8")
        if self.stops:
            generation = {"bos_token_id": ids[self.begin or self.end], "eos_token_id": self.ids(ids)}
            (folder / GENERATION).write_text(json.dumps(generation, indent=1), encoding="utf-8")

    def ids(self, ids: Mapping[str, int]) -> list[int]:
        """Ids of the tokens that end generation, the document's end first."""
        return [ids[token] for token in (self.end, *self.stops)]


def _content(token: Any) -> str | None:
    return token.get("content") if isinstance(token, dict) else token


def _first_added(processor: Mapping[str, Any]) -> str | None:
    """The special token that a post-processor of `tokenizers` puts before a text."""
    for one in processor.get("processors", [processor]):
        template = one.get("single") or []
        if one.get("type") == "TemplateProcessing" and template and "SpecialToken" in template[0]:
            return str(template[0]["SpecialToken"]["id"])
    return None
