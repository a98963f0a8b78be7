"""Text from a causal language model: greedy, temperature, top-k, top-p, by seed, with a cache of keys and values, in a graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import tensorflow as tf

from lmworks.models.chat_marks import Marks, head_length

if TYPE_CHECKING:
    import keras

    from lmworks.models.tokenizer import CausalPieces


class Sampling(NamedTuple):
    """How the next token is chosen; each may be a number or a scalar tensor."""

    temperature: Any = 0.0
    """0 takes the likeliest token."""
    top_k: Any = 0
    """Only the k likeliest tokens; 0 for all."""
    top_p: Any = 1.0
    """Only the likeliest tokens that together have this probability (Holtzman et al. 2020, arXiv:1904.09751)."""
    seed: Any = 0

    @staticmethod
    def specs() -> dict[str, tf.TensorSpec]:
        """As inputs of a signature."""
        dtypes = {"temperature": tf.float32, "top_k": tf.int32, "top_p": tf.float32, "seed": tf.int32}
        return {name: tf.TensorSpec([], dtype, name) for name, dtype in dtypes.items()}


def choose(logits: tf.Tensor, sampling: Sampling, position: tf.Tensor) -> tf.Tensor:
    """The next token of each row: float32 [batch, vocabulary] to int32 [batch].

    Args:
        logits: of the next token.
        sampling: how to choose.
        position: int32 scalar; the same seed and position give the same draw.
    """
    likeliest = tf.argmax(logits, axis=1, output_type=tf.int32)
    temperature = tf.cast(sampling.temperature, tf.float32)

    def draw() -> tf.Tensor:
        scaled = logits / temperature
        restricted = tf.logical_or(tf.cast(sampling.top_k, tf.int32) > 0, tf.cast(sampling.top_p, tf.float32) < 1.0)
        kept = tf.cond(restricted, lambda: _restrict(scaled, sampling), lambda: scaled)
        seed = tf.stack([tf.cast(sampling.seed, tf.int32), position])
        return tf.random.stateless_categorical(kept, 1, seed, tf.int32)[:, 0]

    return tf.cond(temperature > 0.0, draw, lambda: likeliest)


def _restrict(logits: tf.Tensor, sampling: Sampling) -> tf.Tensor:
    """Logits with those outside top-k and top-p at minus infinity; top-p counts within top-k."""
    vocabulary = tf.shape(logits)[1]
    ordered = tf.sort(logits, axis=1, direction="DESCENDING")
    top_k = tf.cast(sampling.top_k, tf.int32)
    count = tf.where(top_k > 0, tf.minimum(top_k, vocabulary), vocabulary)
    inside = tf.range(vocabulary)[None, :] < count
    chances = tf.nn.softmax(tf.where(inside, ordered, -float("inf")))
    before = tf.cumsum(chances, axis=1, exclusive=True)
    # The likeliest token always stays.
    kept = inside & ((before < tf.cast(sampling.top_p, tf.float32)) | (tf.range(vocabulary)[None, :] == 0))
    least = tf.reduce_min(tf.where(kept, ordered, float("inf")), axis=1, keepdims=True)
    return tf.where(logits >= least, logits, -float("inf"))


class Generator:
    """Continues token ids with a KerasHub `CausalLM`.

    Args:
        model: in float32.
        end_ids: the tokens that end a text.
        positions: most tokens that the model sees.
        head: number of tokens that begin every prompt; they are kept where a prompt is cut.

    Attributes:
        cache_shape: of one text, float32 [layers, 2 (keys and values), positions, heads, width of a head].
    """

    def __init__(self, model: keras.Model, end_ids: Sequence[int], positions: int, head: int = 1) -> None:
        self._model, self._ends, self.positions, self._head = model, tuple(end_ids), positions, head
        backbone = model.backbone
        names = ("num_query_heads", "num_attention_heads", "num_heads")
        heads = next(getattr(backbone, name) for name in names if hasattr(backbone, name))
        size = getattr(backbone, "head_dim", None) or backbone.hidden_dim // heads
        kept = getattr(backbone, "num_key_value_heads", heads)
        self.cache_shape = (backbone.num_layers, 2, None, kept, size)

    def fit(self, prompts: tf.RaggedTensor, tokens: tf.Tensor) -> tuple[tf.RaggedTensor, tf.Tensor]:
        """Cuts prompts that the model cannot see whole.

        A prompt that leaves room for one new token is read whole, and new ones fill what it leaves. A longer one keeps its
        head and its end, so that `tokens` new ones fit, or half of the positions where that is less.

        Args:
            prompts: ragged int32 [batch, (length)].
            tokens: int32 scalar, most new tokens.

        Returns:
            What is read, and how many tokens of each were cut behind its head: int32 [batch].
        """
        lengths = tf.cast(prompts.row_lengths(), tf.int32)
        least = self.positions - tf.minimum(tokens, self.positions // 2)
        room = tf.where(lengths < self.positions, lengths, least)
        head = tf.minimum(self._head, room - 1)
        places = tf.ragged.range(lengths)
        keep = (places < head[:, None]) | (places >= (lengths - room + head)[:, None])
        return tf.ragged.boolean_mask(prompts, keep.with_row_splits_dtype(prompts.row_splits.dtype)), lengths - room

    def begin(self, token_ids: tf.Tensor, positions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Reads token ids [batch, length]: logits of the next token, and a cache with room for so many positions."""
        layers, two, _, heads, size = self.cache_shape
        shape = tf.stack([tf.shape(token_ids)[0], layers, two, positions, heads, size])
        cache = tf.zeros(shape, self._model.compute_dtype)
        cache = tf.ensure_shape(cache, [None, *self.cache_shape])
        return self.step(token_ids, cache, tf.constant(0))

    def step(self, token_ids: tf.Tensor, cache: tf.Tensor, index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Reads token ids [batch, length] that stand at `index`: logits of the next token [batch, vocabulary], the new cache."""
        if type(self._model).__name__ == "Gemma3CausalLM":  # keeps keys and values in tensors of their own
            pairs = tuple(tuple(tf.unstack(layer, axis=1)) for layer in tf.unstack(cache, axis=1))
            logits, _, pairs = self._model.call_with_cache(token_ids, pairs, index)
            cache = tf.stack([tf.stack(pair, axis=1) for pair in pairs], axis=1)
        else:
            logits, _, cache = self._model.call_with_cache(token_ids, cache, index)
        return tf.cast(logits[:, -1], tf.float32), tf.ensure_shape(cache, [None, *self.cache_shape])

    def ends(self, token_ids: tf.Tensor) -> tf.Tensor:
        """Where a token ends a text: bool, as int32 ids of any shape."""
        return tf.reduce_any(token_ids[..., None] == tf.constant(self._ends), axis=-1)

    def generate(self, prompts: tf.RaggedTensor, tokens: tf.Tensor, sampling: Sampling) -> tf.RaggedTensor:
        """Continues each prompt until the text ends, at most by so many tokens; works inside a graph.

        Args:
            prompts: ragged int32 [batch, (length)], none empty; what is too long is cut as `fit` says.
            tokens: int32 scalar, most new tokens.
            sampling: how they are chosen.

        Returns:
            Ragged int32 [batch, (new)], without what ended it.
        """
        prompts, _ = self.fit(prompts, tokens)
        lengths = tf.cast(prompts.row_lengths(), tf.int32)
        ends_at = lengths + tf.minimum(tokens, self.positions - lengths)
        shortest, end = tf.reduce_min(lengths), tf.reduce_max(ends_at)
        given = prompts.to_tensor(self._ends[0])
        rows = tf.shape(given)[0]
        buffer = tf.concat([given, tf.fill([rows, end - tf.shape(given)[1]], self._ends[0])], axis=1)
        logits, cache = self.begin(given[:, :shortest], end)
        places = tf.range(end)[None, :]

        def go_on(index: tf.Tensor, buffer: tf.Tensor, *rest: tf.Tensor) -> tf.Tensor:
            ended = rest[-1]
            return (index < end) & ~tf.reduce_all(ended)

        def advance(index: tf.Tensor, buffer: tf.Tensor, logits: tf.Tensor, cache: tf.Tensor, ended: tf.Tensor) -> Any:
            new = choose(logits, sampling, index)
            inside = index < lengths
            new = tf.where(inside, buffer[:, index], tf.where(ended, self._ends[0], new))
            ended = ended | (~inside & self.ends(new)) | (index >= ends_at)
            buffer = tf.where(places == index, new[:, None], buffer)
            logits, cache = self.step(new[:, None], cache, index)
            return index + 1, buffer, logits, cache, ended

        _, buffer, _, _, _ = tf.while_loop(
            go_on,
            advance,
            (shortest, buffer, logits, cache, tf.zeros([rows], tf.bool)),
            shape_invariants=(
                tf.TensorShape([]),
                tf.TensorShape([None, None]),
                tf.TensorShape([None, None]),
                tf.TensorShape([None, *self.cache_shape]),
                tf.TensorShape([None]),
            ),
        )
        new = (places >= lengths[:, None]) & (places < ends_at[:, None])
        ends = tf.cumsum(tf.cast(new & self.ends(buffer), tf.int32), axis=1) > 0
        return tf.ragged.boolean_mask(buffer, new & ~ends)


class Completion(NamedTuple):
    """What continues a prompt."""

    token_ids: np.ndarray
    """int32 [new]."""
    cut: int
    """Tokens of the prompt that were not read."""


class Completer:
    """Continues texts, each read as a document's beginning is; compiled once.

    Args:
        model: a `CausalLM`.
        pieces: its tokenizer.
        positions: most tokens that the model sees.
        tokens: most new tokens.
        sampling: how they are chosen.
        chat: whether texts are rendered conversations up to where the assistant answers.
    """

    def __init__(
        self,
        model: keras.Model,
        pieces: CausalPieces,
        positions: int,
        tokens: int,
        sampling: Sampling,
        chat: bool = False,
    ) -> None:
        generator = Generator(model, pieces.end_ids, positions, head_length(pieces, chat))
        marks = Marks.of(pieces) if chat else None

        @tf.function(input_signature=[tf.TensorSpec([None], tf.int32), tf.TensorSpec([None], tf.int64)])
        def compute(flat: tf.Tensor, splits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            prompts, cut = generator.fit(tf.RaggedTensor.from_row_splits(flat, splits), tf.constant(tokens))
            new = generator.generate(prompts, tf.constant(tokens), sampling)
            return new.flat_values, new.row_splits, cut

        self._pieces, self._compute, self._encode = pieces, compute, marks.encode_rendered if marks else pieces.encode

    def complete(self, prompts: Sequence[str]) -> list[Completion]:
        """Continues each prompt."""
        rows = [np.concatenate([[self._pieces.begin_id], one]) for one in self._encode(prompts)]
        splits = np.cumsum([0, *map(len, rows)])
        flat, ends, cut = self._compute(tf.constant(np.concatenate(rows), tf.int32), tf.constant(splits, tf.int64))
        return list(map(Completion, np.split(flat.numpy(), ends.numpy()[1:-1]), cut.numpy().tolist()))

    def token_ids(self, prompts: Sequence[str]) -> list[np.ndarray]:
        """New tokens of each prompt, int32."""
        return [one.token_ids for one in self.complete(prompts)]

    def __call__(self, prompts: Sequence[str]) -> list[str]:
        """The continuations."""
        return [self._pieces.continuation(one) for one in self.token_ids(prompts)]
