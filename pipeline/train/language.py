"""Pretraining and continued training of language models, causal and masked."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lmworks.configs.schema import TrainStage
from lmworks.models import causal_lm, masked_lm
from lmworks.models.backend import accelerator, choose_precision, dtype_of, peak_flops
from lmworks.models.generation import Completer, Sampling
from lmworks.models.losses import cross_entropy
from lmworks.models.tokenizer import CausalPieces, open_pieces
from lmworks.models.wordpiece import WordPiece
from lmworks.pipeline.masking import MaskedRows
from lmworks.pipeline.packing import DocumentTable, Packing
from lmworks.pipeline.preset import local_preset
from lmworks.pipeline.train import loop
from lmworks.pipeline.windows import Window, predictions, windows_of
from lmworks.tfx.artifacts import Logs, Model, Sequences

_SAMPLE_TOKENS = 64


def fit(config: TrainStage, sequences: Sequences, model: Model, logs: Logs) -> None:
    """Trains, evaluates now and then, and writes the best checkpoint."""
    keras.utils.set_random_seed(config.seed)
    precision = choose_precision(config.precision)
    length = sequences.properties["sequence_length"]
    preset, dtype = local_preset(config.model.preset), dtype_of(precision)
    pieces = open_pieces(sequences.path / "tokenizer", sequences.properties["tokenizer"])
    work: Causal | MaskedWork
    if isinstance(pieces, WordPiece):
        work = MaskedWork(config, masked_lm.build(config.model, preset, pieces, length, dtype), pieces, sequences)
    else:
        work = Causal(config, causal_lm.build(config.model, preset, pieces, length, dtype), pieces, sequences)
    trained = loop.run(config, work, precision, logs)
    if isinstance(work, Causal):
        causal_lm.save(work.model, work.pieces, length, model.path)
    else:
        masked_lm.save(work.model, work.pieces, length, model.path)
    model.properties |= {"sequence_length": length, **trained.properties(work.model)}


class _Packed:
    """What both kinds share: an epoch's sequences in order, cut into steps and micro-batches."""

    def __init__(self, config: TrainStage, sequences: Sequences, room: int, border: tuple[int, ...]) -> None:
        self.config, self.length = config, int(sequences.properties["sequence_length"])
        self.training, self.validation = (DocumentTable(sequences, split) for split in ("train", "validation"))
        self._room, self._border = room, border
        self._peak = peak_flops(accelerator(), choose_precision(config.precision))
        self._packing = self._pack(0)
        self.steps_per_epoch = math.ceil(self._packing.sequences / (config.batch_size * config.accumulate))

    def _pack(self, epoch: int) -> Packing:
        return Packing(self.training.lengths, self._room, self.config.seed, epoch, self._border)

    def rows(self, step: int) -> list[np.ndarray]:
        """Sequences of a step are chosen first, and then cut into micro-batches; -1 fills the last one of an epoch."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._packing.epoch:
            self._packing = self._pack(epoch)
        order, size = self._packing.sequence_order, self.config.batch_size * self.config.accumulate
        chosen = order[place * size : (place + 1) * size]
        chosen = np.concatenate([chosen, np.full(size - len(chosen), -1)])
        return np.split(chosen, self.config.accumulate)

    def describe(self, loss: float, tokens_per_second: float) -> dict[str, float]:
        """Perplexity, and the arithmetic that is done."""
        flops = flops_per_token(self.model, self.length) * tokens_per_second
        share = {"flops_share_of_peak": flops / self._peak} if self._peak else {}
        return {"perplexity": math.exp(min(loss, 700.0)), "flops_per_second": flops, **share}

    model: keras.Model


class Causal(_Packed):
    """Every token is a target, given those before it."""

    def __init__(self, config: TrainStage, model: keras.Model, pieces: CausalPieces, sequences: Sequences) -> None:
        length = int(sequences.properties["sequence_length"])
        super().__init__(config, sequences, length, pieces.border_ids)
        self.model, self.pieces = model, pieces
        targets = int(self.training.lengths.sum(dtype=np.int64)) + len(self.training)
        self._bytes_per_token = int(self.training.bytes.sum()) / targets
        self._windows = self._validation_windows()
        self._compute = causal_lm.log_probabilities(model)
        tokens = min(_SAMPLE_TOKENS, length - 1)
        self._sample = Completer(model, pieces, length, tokens, Sampling(0.8, seed=config.seed))

    def input_specs(self) -> dict[str, tf.TensorSpec]:
        """See `loop.Work`."""
        shape = [self.config.batch_size, self.length]
        dtypes = {"token_ids": tf.int32, "targets": tf.int32, "weights": tf.float32}
        return {name: tf.TensorSpec(shape, dtype, name) for name, dtype in dtypes.items()}

    def micro_batches(self, step: int) -> list[loop.MicroBatch]:
        """See `loop.Work`."""
        return [self._batch(rows) for rows in self.rows(step)]

    def _batch(self, rows: np.ndarray) -> loop.MicroBatch:
        token_ids = np.full((len(rows), self.length), self.pieces.end_id, np.int32)
        targets, weights = token_ids.copy(), np.zeros(token_ids.shape, np.float32)
        for place, row in enumerate(rows):
            if row < 0:
                continue
            first, last = self._packing.span(int(row))
            stream = self._packing.read(self.training, first - 1, last)
            token_ids[place, : len(stream) - 1], targets[place, : len(stream) - 1] = stream[:-1], stream[1:]
            weights[place, : len(stream) - 1] = self._packing.read_targets(self.training, first, last)
        inputs = {"token_ids": token_ids, "targets": targets, "weights": weights}
        tokens = sum(last - first for first, last in (self._packing.span(int(row)) for row in rows if row >= 0))
        return loop.MicroBatch(inputs, float(weights.sum()), int((rows >= 0).sum()), tokens)

    def loss(self, inputs: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """See `loop.Work`."""
        states = causal_lm.states(self.model, inputs["token_ids"], training=True)
        return cross_entropy(
            tf.reshape(states, [-1, states.shape[-1]]),
            causal_lm.output_embeddings(self.model),
            tf.reshape(inputs["targets"], [-1]),
            tf.reshape(inputs["weights"], [-1]),
            self.config.label_smoothing,
            self.config.z_loss,
            soft_cap=causal_lm.soft_cap(self.model),
        )

    def describe(self, loss: float, tokens_per_second: float) -> dict[str, float]:
        """See `loop.Work`."""
        bits = {"bits_per_byte": loss / math.log(2) / self._bytes_per_token} if self.training.all_targets else {}
        return {**super().describe(loss, tokens_per_second), **bits}

    def validate(self, step: int) -> dict[str, float]:
        """Loss and what follows from it on (a part of) the validation split, and a sample of text."""
        nll = hits = targets = 0.0
        for one in predictions(self._compute, self.validation, self._windows, self.pieces):
            nll -= float(one.log_probabilities[one.targets].sum(dtype=np.float64))
            hits += float(one.hits[one.targets].sum())
            targets += float(one.targets.sum())
        tf.summary.text("validation/sample", self._sample([""])[0], step)
        found = {
            "loss": nll / targets,
            "perplexity": math.exp(min(nll / targets, 700.0)),
            "accuracy": hits / targets,
        }
        if self.validation.all_targets:
            documents = sorted({window.document for window in self._windows})
            share = targets / float((self.validation.lengths[documents] + 1).sum())
            size = float(self.validation.bytes[documents].sum()) * share
            found["bits_per_byte"] = nll / math.log(2) / size
        return found

    def _validation_windows(self) -> list[Window]:
        """Windows without overlap, of documents in their order, up to `validation_tokens`."""
        found: list[Window] = []
        left = self.config.validation_tokens
        for document, tokens in enumerate(self.validation.lengths):
            for window in windows_of(int(tokens), self.length, self.length, document):
                if left <= 0:
                    return found
                found.append(window)
                left -= window.end - window.fresh
        return found


class MaskedWork(_Packed):
    """A share of the tokens is hidden, and they are the targets."""

    def __init__(self, config: TrainStage, model: keras.Model, pieces: WordPiece, sequences: Sequences) -> None:
        super().__init__(config, sequences, int(sequences.properties["sequence_length"]) - 2, (pieces.sep_id,))
        self.model, self.pieces = model, pieces
        self._masking = MaskedRows(pieces, self.length, config.mask_ratio, config.whole_word)
        self._compute = self._masking.compiled(model, config.batch_size)
        self._fixed = self._masking.whole_split(self.validation, config.validation_tokens, config.batch_size)

    def input_specs(self) -> dict[str, tf.TensorSpec]:
        """See `loop.Work`."""
        return self._masking.input_specs(self.config.batch_size)

    def micro_batches(self, step: int) -> list[loop.MicroBatch]:
        """See `loop.Work`; masks are drawn anew in every epoch."""
        epoch = step // self.steps_per_epoch
        batches = []
        for rows in self.rows(step):
            inputs = self._masking.batch(self.training, self._packing, rows, [self.config.seed, epoch])
            count = float(inputs["weights"].sum())
            tokens = int(inputs["padding_mask"].sum())
            batches.append(loop.MicroBatch(inputs, count, int((rows >= 0).sum()), tokens))
        return batches

    def loss(self, inputs: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """See `loop.Work`."""
        states, embeddings, bias = masked_lm.target_states(self.model, inputs, inputs["positions"], training=True)
        return cross_entropy(
            tf.reshape(states, [-1, states.shape[-1]]),
            embeddings,
            tf.reshape(inputs["targets"], [-1]),
            tf.reshape(inputs["weights"], [-1]),
            self.config.label_smoothing,
            self.config.z_loss,
            bias,
        )

    def validate(self, step: int) -> dict[str, float]:
        """Loss and accuracy at masks that are the same in every evaluation."""
        nll = hits = targets = 0.0
        for inputs, found, correct in self._masking.predictions(self._compute, self._fixed):
            weights = inputs["weights"]
            nll -= float((found * weights).sum(dtype=np.float64))
            hits += float((correct * weights).sum())
            targets += float(weights.sum())
        return {"loss": nll / targets, "perplexity": math.exp(min(nll / targets, 700.0)), "accuracy": hits / targets}


def flops_per_token(model: keras.Model, length: int) -> float:
    """Floating point operations of forward and backward pass for one token.

    Six per parameter that is multiplied, and the attention's products: 12 · layers · width · length (Chowdhery et al. 2022,
    arXiv:2204.02311, appendix B). Position and segment embeddings are looked up, not multiplied, and so are token embeddings
    that are not tied to the output.
    """
    backbone: Any = model.backbone
    looked_up = [one for one in model.trainable_variables if "position" in one.path or "segment" in one.path]
    if not getattr(backbone.token_embedding, "tie_weights", True):
        looked_up.append(backbone.token_embedding.embeddings)
    parameters = model.count_params() - sum(math.prod(one.shape) for one in looked_up)
    return 6.0 * parameters + 12.0 * backbone.num_layers * backbone.hidden_dim * length
