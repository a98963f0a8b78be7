"""How many parameters a model from scratch has, computed from its config before it is built."""

from __future__ import annotations

from lmworks.configs.schema import Model, Task

BERT_POSITIONS = 512
"""Position embeddings of a BERT from scratch, at least, so that it can be fine-tuned on longer texts than it was trained on."""


def positions_from_scratch(task: Task, sequence_length: int) -> int:
    """Returns the positions of a model from scratch: language models get as many as their sequences need."""
    return {
        "text_classification": BERT_POSITIONS,
        "masked_lm": max(sequence_length, BERT_POSITIONS),
        "causal_lm": sequence_length,
    }[task]


def parameters_from_scratch(settings: Model, task: Task, vocabulary_size: int, sequence_length: int) -> int:
    """Counts the weights of a model from scratch as KerasHub builds it, a classifier's output layer left out.

    Args:
        settings: the config's `model` section, with an architecture.
        task: of the config.
        vocabulary_size: number of tokens.
        sequence_length: tokens of the longest sequence.
    """
    width, inner = settings.hidden_dim, settings.intermediate_dim
    norm, dense = 2 * width, width * width + width
    # Queries, keys, values and the attention's output; the two layers of the feed-forward network; two norms.
    layer = 4 * dense + (width * inner + inner) + (inner * width + width) + 2 * norm
    shared = vocabulary_size * width + settings.layers * layer + norm
    positions = positions_from_scratch(task, sequence_length)
    if settings.architecture == "gpt2":
        return shared + positions * width
    segments, pooler = 2 * width, dense
    head = dense + norm + vocabulary_size if task == "masked_lm" else 0
    return shared + positions * width + segments + pooler + head
