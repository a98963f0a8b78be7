"""Raw text to probabilities: the exported SavedModel beside a `transformers` pipeline on the same weights, batch 1 and 32.

.venv-peers/bin/python tests/benchmarks/serve.py --run=runs/sentiment
"""

import argparse
import itertools
import os
import random
import time
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow.parquet as pq
from table import add

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--run", type=Path, default=Path("runs/sentiment"), help="a finished run of a BERT with two labels"
    )
    parser.add_argument("--rounds", type=int, default=5)
    flags = parser.parse_args()
    files = sorted((flags.run / "ingest/examples/Split-test").glob("*.parquet"))
    texts = [text for file in files for text in pq.read_table(file, columns=["text"]).column("text").to_pylist()]
    random.Random(0).shuffle(texts)
    texts = list(itertools.islice(itertools.cycle(texts), 640))
    ours, theirs = _saved_model(flags.run), _pipeline(flags.run)
    difference = max(abs(a - b) for a, b in zip(ours(texts[:64]), theirs(texts[:64]), strict=True))
    print(f"same weights: largest difference of a probability over 64 texts {difference:.1e}")
    print(f"{'batch':>6}{'SavedModel':>14}{'pipeline':>14}{'lmworks is':>12}")
    for batch, count in ((1, 100), (32, 640)):
        seen: dict[str, list[float]] = {"ours": [], "theirs": []}
        for turn in range(flags.rounds + 1):  # the first round warms up
            for name, answer in (("ours", ours), ("theirs", theirs)):
                began = time.perf_counter()
                for start in range(0, count, batch):
                    answer(texts[start : start + batch])
                if turn:
                    seen[name].append(time.perf_counter() - began)
        a, b = median(seen["ours"]), median(seen["theirs"])
        shown = (f"{1000 * s / count:.1f} ms" if batch == 1 else f"{count / s:.0f} texts/s" for s in (a, b))
        print(f"{batch:>6}{next(shown):>14}{next(shown):>14}{b / a:11.2f}x")
        add("serve", f"batch {batch}, pipeline", 1000 * a / count, 1000 * b / count, "ms a text", less_is_better=True)


def _saved_model(run: Path):
    import tensorflow as tf

    from lmworks.pipeline.export.servable_folder import open_servable

    served = open_servable(run / "export/servable")
    answer = served.signatures["serving_default"]
    return lambda texts: answer(text=tf.constant(texts))["probabilities"].numpy()[:, 1]


def _pipeline(run: Path):
    """The trained weights in `transformers`' classifier; KerasHub names every part of BERT."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast, pipeline

    from lmworks.models import text_classification
    from lmworks.models.transformer_arithmetic import read_arithmetic

    classifier, labels = text_classification.load(run / "train/model")
    found = {one.path: np.array(one) for one in classifier.weights}
    backbone = classifier.backbone
    settings = BertConfig(
        vocab_size=backbone.vocabulary_size,
        hidden_size=backbone.hidden_dim,
        num_hidden_layers=backbone.num_layers,
        num_attention_heads=backbone.num_heads,
        intermediate_size=backbone.intermediate_dim,
        hidden_act=read_arithmetic(classifier).activation,
        layer_norm_eps=read_arithmetic(classifier).layer_norm_epsilon,
        num_labels=len(labels),
    )
    model = BertForSequenceClassification(settings).eval()
    state = model.state_dict()
    for target, value in _bert_weights(found, backbone).items():
        assert state[target].shape == value.shape, target
        state[target] = torch.from_numpy(np.ascontiguousarray(value))
    model.load_state_dict(state)
    vocabulary = next((run / "train/model/exact_tokenizer").glob("tokenizer.json"))
    tokenizer = BertTokenizerFast(tokenizer_file=str(vocabulary), model_max_length=96)
    classify = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu", top_k=None)

    def answer(texts: list[str]) -> list[float]:
        told = classify(texts, batch_size=len(texts), truncation=True)
        return [next(one["score"] for one in scores if one["label"] == "LABEL_1") for scores in told]

    return answer


def _bert_weights(found: dict[str, np.ndarray], backbone) -> dict[str, np.ndarray]:
    def of(*parts: str) -> np.ndarray:
        return next(value for path, value in found.items() if path.endswith("/".join(parts)))

    state = {
        "bert.embeddings.word_embeddings.weight": of("token_embedding", "embeddings"),
        "bert.embeddings.position_embeddings.weight": of("position_embedding", "embeddings"),
        "bert.embeddings.token_type_embeddings.weight": of("segment_embedding", "embeddings"),
        "bert.embeddings.LayerNorm.weight": of("embeddings_layer_norm", "gamma"),
        "bert.embeddings.LayerNorm.bias": of("embeddings_layer_norm", "beta"),
        "bert.pooler.dense.weight": of("pooled_dense", "kernel").T,
        "bert.pooler.dense.bias": of("pooled_dense", "bias"),
        "classifier.weight": of("logits", "kernel").T,
        "classifier.bias": of("logits", "bias"),
    }
    parts = {
        "attention.self.query": "self_attention_layer/query",
        "attention.self.key": "self_attention_layer/key",
        "attention.self.value": "self_attention_layer/value",
        "attention.output.dense": "self_attention_layer/attention_output",
        "intermediate.dense": "feedforward_intermediate_dense",
        "output.dense": "feedforward_output_dense",
    }
    norms = {"attention.output": "self_attention_layer_norm", "output": "feedforward_layer_norm"}
    for number in range(backbone.num_layers):
        ours, theirs = f"transformer_layer_{number}", f"bert.encoder.layer.{number}"
        for target, source in parts.items():
            kernel, bias = of(ours, source, "kernel"), of(ours, source, "bias").reshape(-1)
            rows = -1 if source.endswith("attention_output") else kernel.shape[0]
            state[f"{theirs}.{target}.weight"] = kernel.reshape(rows, len(bias)).T
            state[f"{theirs}.{target}.bias"] = bias
        for target, source in norms.items():
            state[f"{theirs}.{target}.LayerNorm.weight"] = of(ours, source, "gamma")
            state[f"{theirs}.{target}.LayerNorm.bias"] = of(ours, source, "beta")
    return state


if __name__ == "__main__":
    main()
