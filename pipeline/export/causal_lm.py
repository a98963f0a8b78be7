"""The SavedModel of a causal language model: prompt to text, text to log-probabilities, and steps for streaming."""

from __future__ import annotations

import re
from pathlib import Path

import keras
import tensorflow as tf

from lmworks.models import causal_lm
from lmworks.models.chat import END, QUESTION
from lmworks.models.chat_marks import Marks, head_length
from lmworks.models.generation import Generator, Sampling, choose
from lmworks.models.tokenizer import CausalPieces, open_causal_pieces
from lmworks.pipeline.export.card import Described
from lmworks.pipeline.export.empty_batches import compute_rows
from lmworks.tfx.artifacts import Examples, Model, Sequences

_DEFAULT_TOKENS = 64


def save(examples: Examples, sequences: Sequences, model: Model, folder: Path) -> Described:
    """Writes the SavedModel of a trained model."""
    pieces = open_causal_pieces(sequences.path / "tokenizer")
    length = int(sequences.properties["sequence_length"])
    chat = bool(sequences.properties["chat"])
    plain = chat and Marks.of(pieces) is None
    loaded = causal_lm.load(model.path)
    write(loaded, pieces, length, folder, chat)
    return Described(
        model=loaded,
        pieces=pieces,
        length=length,
        properties={"sequence_length": length, "vocabulary_size": pieces.vocabulary_size, "chat": chat},
        about=f"A causal language model that sees {length} tokens at once"
        + (" and answers questions (ChatML)." if chat else ".")
        + " A longer text loses its beginning, but for the tokens that begin every text."
        + (
            f" Its answers end with the text {END}, no token: a program that generates must stop there."
            if plain
            else ""
        ),
        use='served(text=tf.constant(["…"]))  # text: string [batch], the greedy continuation; '
        "signatures generate, score, begin and step do more",
    )


def write(model: keras.Model, pieces: CausalPieces, length: int, folder: Path, chat: bool = False) -> None:
    """Writes a SavedModel. Of a model that chats, all but `score` and `tokenize` put the text as a user's question.

    Signatures:
        serving_default: `text`: string [batch] → `text`: string [batch], the likeliest continuation, at most 64 tokens.
        generate: `text`, `tokens`: int32 (most new ones), `temperature`, `top_k`, `top_p`, `seed` → `text`.
        score: `text`: string [batch] → `log_probabilities`: float32 [batch, longest], in nats, of each token and of the
            end of the text, of the first `length` ones; 0 behind the end; `targets`: int32 [batch], how many there are.
            Of a model that chats the text is a whole conversation as the template renders it, and its end, which such a
            model does not learn, is not among them; all turns are, while the evaluation counts the assistant's.
        tokenize: `text`: string [batch] → `token_ids`: int32 [batch, longest], -1 behind the end.
        begin: `text`: string [1], `tokens` and the sampling → `token`: int32 [1], its `bytes`, whether it `ended` the text,
            `cache`, `index`, `stop`: string [stops], which end the text too, and `cut`: int32 [1], how many tokens of a
            text that is too long were not read.
        step: `token`, `cache`, `index` and the sampling → the same, one token on.

    A text with which one new token fits is read whole, and new ones fill what it leaves. A longer one loses tokens behind
    those that begin every text (begin-of-text and, of a model that chats, the mark and role before a question).
    """
    module = tf.Module()
    module.model, module.tokenizer = model, getattr(pieces, "resource", None)
    marks = Marks.of(pieces) if chat else None
    generator = Generator(model, pieces.end_ids, length, head_length(pieces, chat))
    text = tf.TensorSpec([None], tf.string, "text")
    sampling = list(Sampling.specs().values())
    cache_spec = tf.TensorSpec([1, *generator.cache_shape], tf.float32, "cache")

    # A mark that is a token of its own ends the text as such.
    stops = [END] if chat and not marks else []

    def begun(found: tf.RaggedTensor) -> tf.RaggedTensor:
        """Each text behind what stands before a document."""
        return tf.concat([tf.RaggedTensor.from_tensor(tf.fill([found.nrows(), 1], pieces.begin_id)), found], axis=1)

    def prompts(text: tf.Tensor) -> tf.RaggedTensor:
        if marks:
            return begun(marks.question(tf.strings.strip(text)))
        text = tf.strings.join([QUESTION[0], tf.strings.strip(text), QUESTION[1]]) if chat else text
        return begun(pieces.tokenize(text))

    def answers(found: tf.RaggedTensor) -> dict[str, tf.Tensor]:
        text = pieces.detokenize(found)
        return {"text": tf.strings.regex_replace(text, rf"(?s){re.escape(END)}.*", "") if stops else text}

    def continued(text: tf.Tensor, tokens: tf.Tensor, how: Sampling) -> dict[str, tf.Tensor]:
        return compute_rows(lambda texts: answers(generator.generate(prompts(texts), tokens, how)), text)

    @tf.function(input_signature=[text, tf.TensorSpec([], tf.int32, "tokens"), *sampling])
    def generate(
        text: tf.Tensor, tokens: tf.Tensor, temperature: tf.Tensor, top_k: tf.Tensor, top_p: tf.Tensor, seed: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        return continued(text, tokens, Sampling(temperature, top_k, top_p, seed))

    @tf.function(input_signature=[text])
    def serving_default(text: tf.Tensor) -> dict[str, tf.Tensor]:
        return continued(text, tf.constant(min(_DEFAULT_TOKENS, length - 1)), Sampling())

    def scored(text: tf.Tensor) -> dict[str, tf.Tensor]:
        ids = begun(marks.tokenize(text) if marks else pieces.tokenize(text))
        if not chat:
            ends = tf.RaggedTensor.from_tensor(tf.fill([ids.nrows(), 1], pieces.end_id))
            ids = tf.concat([ids, ends], axis=1)
        stream = ids[:, : length + 1]
        dense = stream.to_tensor(pieces.end_id)
        targets = tf.cast(stream.row_lengths(), tf.int32) - 1
        logits = causal_lm.logits_of(model, dense[:, :-1])
        chosen, _ = causal_lm.scores(logits, dense[:, 1:])
        real = tf.range(tf.shape(chosen)[1])[None, :] < targets[:, None]
        return {"log_probabilities": tf.where(real, chosen, 0.0), "targets": targets}

    @tf.function(input_signature=[text])
    def score(text: tf.Tensor) -> dict[str, tf.Tensor]:
        return compute_rows(scored, text)

    @tf.function(input_signature=[text])
    def tokenize(text: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"token_ids": pieces.tokenize(text).to_tensor(-1)}

    def told(logits: tf.Tensor, cache: tf.Tensor, index: tf.Tensor, sampling: Sampling) -> dict[str, tf.Tensor]:
        token = choose(logits, sampling, index)
        ids = tf.RaggedTensor.from_tensor(token[:, None])
        bytes_of = tf.gather(tf.constant(pieces.token_bytes), ids.flat_values)
        return {"token": token, "bytes": bytes_of, "ended": generator.ends(token), "cache": cache, "index": index}

    @tf.function(
        input_signature=[tf.TensorSpec([1], tf.string, "text"), tf.TensorSpec([], tf.int32, "tokens"), *sampling]
    )
    def begin(
        text: tf.Tensor, tokens: tf.Tensor, temperature: tf.Tensor, top_k: tf.Tensor, top_p: tf.Tensor, seed: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        read, cut = generator.fit(prompts(text), tokens)
        ids = read.to_tensor()
        count = tf.shape(ids)[1]
        logits, cache = generator.begin(ids, count + tf.minimum(tokens, length - count))
        first = told(logits, cache, count, Sampling(temperature, top_k, top_p, seed))
        return {**first, "stop": tf.constant(stops, tf.string), "cut": cut}

    @tf.function(
        input_signature=[
            tf.TensorSpec([1], tf.int32, "token"),
            cache_spec,
            tf.TensorSpec([], tf.int32, "index"),
            *sampling,
        ]
    )
    def step(
        token: tf.Tensor,
        cache: tf.Tensor,
        index: tf.Tensor,
        temperature: tf.Tensor,
        top_k: tf.Tensor,
        top_p: tf.Tensor,
        seed: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        logits, cache = generator.step(token[:, None], cache, index)
        return told(logits, cache, index + 1, Sampling(temperature, top_k, top_p, seed))

    signatures = {
        "serving_default": serving_default,
        "generate": generate,
        "score": score,
        "tokenize": tokenize,
        "begin": begin,
        "step": step,
    }
    for name, function in signatures.items():
        setattr(module, name, function)
    tf.saved_model.save(module, str(folder), signatures=signatures)
