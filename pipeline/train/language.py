"""Pretraining and continued training of language models, causal and masked."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from lmworks.configs.schema import TrainStage
from lmworks.models import causal_lm, masked_lm
from lmworks.models.arithmetic import accelerator, flops_per_token, peak_flops
from lmworks.models.backend import backend, choose_precision
from lmworks.models.cross_entropy import cross_entropy
from lmworks.models.document_attention import check_attention_mask
from lmworks.models.tokenizer import CausalPieces, open_pieces
from lmworks.models.wordpiece import WordPiece
from lmworks.pipeline.evaluate.language_metrics import Sums, bits_per_byte, masked_rows, perplexity, window_row
from lmworks.pipeline.masking import MaskedRows
from lmworks.pipeline.masking import predictions as masked_predictions
from lmworks.pipeline.packing import DocumentTable, Packing
from lmworks.pipeline.preset import local_preset
from lmworks.pipeline.train import loop
from lmworks.pipeline.train.curves import Curves
from lmworks.pipeline.train.engine import train
from lmworks.pipeline.windows import Window, predictions, windows_of
from lmworks.tfx.artifacts import Logs, Model, Sequences
from lmworks.tfx.progress import doing

_SAMPLE_TOKENS, _SAMPLE_TEMPERATURE = 64, 0.8


def fit(config: TrainStage, sequences: Sequences, model: Model, logs: Logs) -> None:
    """Trains, evaluates now and then, and writes the best checkpoint."""
    length = int(sequences.properties["sequence_length"])
    doing(f"loading {config.model.preset}" if config.model.preset else "building the model")
    preset = local_preset(config.model.preset, reads_weights=True)
    pieces = open_pieces(sequences.path / "tokenizer", sequences.properties["tokenizer"])

    def make(config: TrainStage, dtype: str) -> Causal | MaskedWork:
        if isinstance(pieces, WordPiece):
            return MaskedWork(config, masked_lm.build(config.model, preset, pieces, length, dtype), pieces, sequences)
        return Causal(config, causal_lm.build(config.model, preset, pieces, length, dtype), pieces, sequences)

    trained, work = train(config, make, sequences, model, logs)
    doing("saving the model")
    work.save(model)
    model.properties |= {"sequence_length": length, **trained.properties(work.model)}
    if isinstance(work, Causal) and not work.attends_across:
        model.properties["summary"] += ", attention within documents"


class _Packed:
    """What both kinds share: an epoch's sequences in order, cut into steps and micro-batches.

    Attributes:
        predicted: positions of a sequence for which a prediction is computed.
    """

    def __init__(self, config: TrainStage, sequences: Sequences, room: int, border: tuple[int, ...]) -> None:
        self.config, self.length = config, int(sequences.properties["sequence_length"])
        self.predicted = self.length
        self.largest_step = 0  # all have the same shape
        self.training, self.validation = (DocumentTable(sequences, split) for split in ("train", "validation"))
        self._room, self._border = room, border
        self._peak = peak_flops(accelerator(), choose_precision(config.precision))
        self._packing = self._pack(0)
        self.steps_per_epoch = math.ceil(self._packing.sequences / (config.rows * config.accumulate))

    def _pack(self, epoch: int) -> Packing:
        return Packing(self.training.lengths, self._room, self.config.seed, epoch, self._border)

    def _sequences(self, packing: Packing, step: int) -> np.ndarray:
        """Sequences of a step. They are spread evenly: in a short last step of an epoch each would weigh more."""
        place = step % self.steps_per_epoch
        size, more = divmod(packing.sequences, self.steps_per_epoch)
        begin = place * size + min(place, more)
        return packing.sequence_order[begin : begin + size + (place < more)]

    def rows(self, step: int) -> list[np.ndarray]:
        """Sequences of a step are chosen first, and then cut into micro-batches; -1 fills the last one."""
        epoch = step // self.steps_per_epoch
        if epoch != self._packing.epoch:
            self._packing = self._pack(epoch)
        chosen, size = self._sequences(self._packing, step), self.config.rows * self.config.accumulate
        chosen = np.concatenate([chosen, np.full(size - len(chosen), -1)])
        return np.split(chosen, self.config.accumulate)

    def ids(self, step: int) -> list[str]:
        """See `loop.Work`: the documents that its sequences are cut from."""
        packing = self._pack(step // self.steps_per_epoch)
        documents: dict[int, None] = {}
        for row in self._sequences(packing, step):
            begin, end = packing.span(int(row))
            first, last = np.searchsorted(packing.starts, [begin, end - 1], side="right") - 1
            documents |= dict.fromkeys(packing.order[first : last + 1].tolist())
        return [self.training.ids[document].as_py() for document in documents]

    def describe(self, loss: float, tokens_per_second: float, devices: int) -> dict[str, float]:
        """Perplexity, and the arithmetic that is done."""
        flops = flops_per_token(self.model, self.length, self.predicted) * tokens_per_second
        share = {"flops_share_of_peak": flops / self._peak / devices} if self._peak else {}
        return {"perplexity": float(perplexity(loss)), "flops_per_second": flops, **share}

    model: keras.Model


class Causal(_Packed):
    """Every token is a target, given those before it."""

    def __init__(self, config: TrainStage, model: keras.Model, pieces: CausalPieces, sequences: Sequences) -> None:
        length = int(sequences.properties["sequence_length"])
        super().__init__(config, sequences, length, pieces.border_ids)
        self.model, self.pieces = model, pieces
        across = config.attend_across_documents
        self.attends_across = not sequences.properties["chat"] if across == "auto" else across
        if not self.attends_across:
            check_attention_mask(model)
        targets = int(self.training.lengths.sum(dtype=np.int64)) + len(self.training)
        self._bytes_per_token = int(self.training.bytes.sum()) / targets
        self._windows = self._validation_windows()
        self._compute = causal_lm.log_probabilities(model)
        self._sample = _sampler(model, pieces, length, config.seed)

    def input_specs(self) -> dict[str, keras.InputSpec]:
        """See `loop.Work`."""
        shape = [self.config.rows, self.length]
        dtypes = {"token_ids": "int32", "targets": "int32", "weights": "float32"}
        dtypes |= {} if self.attends_across else {"documents": "int32"}
        return {name: keras.InputSpec(shape=shape, dtype=dtype) for name, dtype in dtypes.items()}

    def micro_batches(self, step: int) -> list[loop.MicroBatch]:
        """See `loop.Work`."""
        return [self._batch(rows) for rows in self.rows(step)]

    def _batch(self, rows: np.ndarray) -> loop.MicroBatch:
        token_ids = np.full((len(rows), self.length), self.pieces.end_id, np.int32)
        targets, weights = token_ids.copy(), np.zeros(token_ids.shape, np.float32)
        documents = np.full(token_ids.shape, -1, np.int32)
        for place, row in enumerate(rows):
            if row < 0:
                continue
            first, last = self._packing.span(int(row))
            stream = self._packing.read(self.training, first - 1, last)
            token_ids[place, : len(stream) - 1], targets[place, : len(stream) - 1] = stream[:-1], stream[1:]
            weights[place, : len(stream) - 1] = self._packing.read_targets(self.training, first, last)
            documents[place, : len(stream) - 1] = self._packing.documents(first - 1, last - 1)
        inputs = {"token_ids": token_ids, "targets": targets, "weights": weights}
        inputs |= {} if self.attends_across else {"documents": documents}
        tokens = sum(last - first for first, last in (self._packing.span(int(row)) for row in rows if row >= 0))
        return loop.MicroBatch(inputs, float(weights.sum()), int((rows >= 0).sum()), tokens)

    def loss(self, inputs: dict[str, Any]) -> tuple[Any, Any]:
        """See `loop.Work`."""
        return cross_entropy(
            causal_lm.states(self.model, inputs["token_ids"], training=True, documents=inputs.get("documents")),
            causal_lm.output_embeddings(self.model),
            inputs["targets"],
            inputs["weights"],
            self.config.label_smoothing,
            self.config.z_loss,
            soft_cap=causal_lm.soft_cap(self.model),
        )

    def describe(self, loss: float, tokens_per_second: float, devices: int) -> dict[str, float]:
        """See `loop.Work`."""
        bits = {"bits_per_byte": bits_per_byte(loss, self._bytes_per_token)} if self.training.all_targets else {}
        return {**super().describe(loss, tokens_per_second, devices), **bits}

    def validate(self, step: int, curves: Curves) -> dict[str, float]:
        """Loss and what follows from it on (a part of) the validation split, and a sample of text."""
        found = predictions(self._compute, self.validation, self._windows, self.pieces)
        metrics = Sums.of(window_row(one, self.validation) for one in found).metrics()
        doing("writing a sample")
        curves.text("validation/sample", self._sample([""])[0], step)
        return metrics

    def save(self, model: Model) -> None:
        """Writes the model as it is now."""
        causal_lm.save(self.model, self.pieces, self.length, model.path)
        model.properties["attend_across_documents"] = self.attends_across

    def _validation_windows(self) -> list[Window]:
        """Windows without overlap, drawn from all documents where there are more than `validation_tokens`, always the same.

        Each is as likely as any other: selection sampling (Knuth, The Art of Computer Programming 2, section 3.4.2).
        """
        random = np.random.default_rng(0)
        ends = len(self.validation) if self.validation.all_targets else 0
        left = int(self.validation.lengths.sum(dtype=np.int64)) + ends
        needed = max(self.config.validation_tokens, self.length)  # so that there is one
        chosen: list[Window] = []
        for document, tokens in enumerate(self.validation.lengths):
            for window in windows_of(int(tokens), self.length, self.length, document, self.validation.all_targets):
                if random.random() * left < needed:
                    chosen.append(window)
                    needed -= window.end - window.fresh
                left -= window.end - window.fresh
        return chosen


class MaskedWork(_Packed):
    """A share of the tokens is hidden, and they are the targets."""

    def __init__(self, config: TrainStage, model: keras.Model, pieces: WordPiece, sequences: Sequences) -> None:
        super().__init__(config, sequences, int(sequences.properties["sequence_length"]) - 2, (pieces.sep_id,))
        self.model, self.pieces = model, pieces
        self._masking = MaskedRows(pieces, self.length, config.mask_ratio, config.whole_word)
        self.predicted = self._masking.most
        self._compute = self._masking.compiled(model)
        self._fixed = self._masking.whole_split(self.validation, config.validation_tokens)

    def input_specs(self) -> dict[str, keras.InputSpec]:
        """See `loop.Work`."""
        return self._masking.input_specs(self.config.rows)

    def micro_batches(self, step: int) -> list[loop.MicroBatch]:
        """See `loop.Work`; masks are drawn anew in every epoch."""
        epoch = step // self.steps_per_epoch
        batches = []
        for rows in self.rows(step):
            inputs = self._masking.batch(self.training, self._packing, rows, [self.config.seed, epoch])
            count = float(inputs["weights"].sum())
            tokens = int(inputs["padding_mask"][rows >= 0].sum())
            batches.append(loop.MicroBatch(inputs, count, int((rows >= 0).sum()), tokens))
        return batches

    def loss(self, inputs: dict[str, Any]) -> tuple[Any, Any]:
        """See `loop.Work`."""
        states, embeddings, bias = masked_lm.target_states(self.model, inputs, inputs["positions"], training=True)
        targets, weights = inputs["targets"], inputs["weights"]
        smoothing, z_loss = self.config.label_smoothing, self.config.z_loss
        return cross_entropy(states, embeddings, targets, weights, smoothing, z_loss, bias)

    def validate(self, step: int, curves: Curves) -> dict[str, float]:
        """Loss and accuracy at masks that are the same in every evaluation."""
        found = masked_predictions(self._compute, self._fixed)
        return Sums.of(row for one in found for row in masked_rows(one)).metrics()

    def save(self, model: Model) -> None:
        """Writes the model as it is now."""
        masked_lm.save(self.model, self.pieces, self.length, model.path)


def _sampler(model: keras.Model, pieces: CausalPieces, length: int, seed: int) -> Callable[[list[str]], list[str]]:
    """What continues texts, on this process's backend."""
    tokens = min(_SAMPLE_TOKENS, length - 1)
    if backend() == "jax":
        from lmworks.models.sampling_jax import Sampler

        return Sampler(model, pieces, tokens, _SAMPLE_TEMPERATURE, seed)
    from lmworks.models.generation import Completer, Sampling

    return Completer(model, pieces, length, tokens, Sampling(_SAMPLE_TEMPERATURE, seed=seed))
