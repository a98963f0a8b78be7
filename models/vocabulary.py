"""Tokens in the order of their ids, as a checkpoint's files number them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lmworks.configs.errors import UserError
from lmworks.models.json_files import check_size

_MOST = 1 << 24
"""Ids above it are damage: no vocabulary has as many tokens, and each gap below an id takes room."""


def tokens_by_id(pieces: Mapping[str, int], origin: Path) -> tuple[list[str], list[str]]:
    """Returns the tokens in the order of their ids, and those of them that fill gaps between ids.

    Each token keeps its id: a model's embeddings are numbered by them.

    Args:
        pieces: id of each token.
        origin: the file that says so.

    Raises:
        UserError: two tokens have the same id, or an id is no number that a vocabulary can have.
    """
    by_id: dict[int, str] = {}
    for token, index in pieces.items():
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < _MOST:
            raise UserError(f"{origin}: token {token!r} has the id {index!r}; ids are whole numbers below {_MOST:,}")
        if index in by_id:
            raise UserError(f"{origin}: tokens {by_id[index]!r} and {token!r} have the same id {index}")
        by_id[index] = token
    unused = {index: unused_token(index, pieces) for index in range(max(by_id, default=-1) + 1) if index not in by_id}
    return [token for _, token in sorted({**by_id, **unused}.items())], list(unused.values())


def unused_token(index: int, pieces: Iterable[str]) -> str:
    """Returns the name of a token that fills a gap: what no text gives and no other token is called."""
    name = f"<|unused_{index}|>"
    while name in pieces:
        name = f"<{name}>"
    return name


def with_added(vocabulary: Mapping[str, int], described: Mapping[str, Any], origin: Path) -> dict[str, int]:
    """Returns ids of a `tokenizer.json`'s vocabulary and of the tokens that it adds.

    Args:
        vocabulary: of its model.
        described: the file.
        origin: its path.

    Raises:
        UserError: an added token stands in the vocabulary with another id; `tokenizers` then ignores the one it gives.
    """
    pieces = dict(vocabulary)
    for token in described.get("added_tokens") or []:
        name, index = token["content"], token["id"]
        if pieces.setdefault(name, index) != index:
            raise UserError(f"{origin}: added token {name!r} has the id {index}, and {pieces[name]} in the vocabulary")
    return pieces


def from_lines(path: Path) -> list[str]:
    """Reads a vocabulary with a token a line, whose ids are the lines' numbers from 0 on.

    Of a token that stands in several lines the last one counts, as in `tokenizers`; the others become gaps.

    Raises:
        UserError: the file is too large, or no file.
    """
    check_size(path)
    lines = [line.rstrip() for line in path.read_text(encoding="utf-8").rstrip("\n").split("\n")]
    return tokens_by_id({token: number for number, token in enumerate(lines)}, path)[0]
