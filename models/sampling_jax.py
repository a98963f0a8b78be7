"""Samples of a causal language model while it trains on the JAX backend, by KerasHub's own generation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import keras_hub
import numpy as np

if TYPE_CHECKING:
    import keras

    from lmworks.models.tokenizer import CausalPieces


class Sampler:
    """Continues texts, each read as a document's beginning is; compiled once.

    Args:
        model: a `CausalLM`.
        pieces: its tokenizer.
        tokens: most new tokens.
        temperature: of the softmax that is drawn from.
        seed: the same one gives the same text.
    """

    def __init__(self, model: keras.Model, pieces: CausalPieces, tokens: int, temperature: float, seed: int) -> None:
        self._model, self._pieces, self._tokens = model, pieces, tokens
        model.sampler = keras_hub.samplers.RandomSampler(temperature=temperature, seed=seed)
        self._first = [np.array(one) for one in model.sampler.variables]

    def __call__(self, prompts: Sequence[str]) -> list[str]:
        """The continuations."""
        for variable, value in zip(self._model.sampler.variables, self._first, strict=True):
            variable.assign(value)
        return [self._continue(ids) for ids in self._pieces.encode(prompts)]

    def _continue(self, ids: np.ndarray) -> str:
        given = np.concatenate([[self._pieces.begin_id], ids]).astype(np.int32)
        token_ids = np.full((1, len(given) + self._tokens), self._pieces.end_id, np.int32)
        token_ids[0, : len(given)] = given
        mask = (np.arange(token_ids.shape[1]) < len(given))[None, :].astype(np.int32)
        ends = list(self._pieces.end_ids)
        found = self._model.generate({"token_ids": token_ids, "padding_mask": mask}, stop_token_ids=ends)
        new = np.asarray(found["token_ids"])[0, len(given) :]
        over = np.flatnonzero(np.isin(new, ends))
        return self._pieces.continuation(new[: over[0]] if len(over) else new)
