"""BERT in NumPy and float64 from the files of a Hugging Face folder, after Devlin et al. 2018 (arXiv:1810.04805).

It shares nothing with the models: every figure comes from `config.json` and `model.safetensors`.
"""

import json
import math
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

ACTIVATIONS = {
    "gelu": lambda x: x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2))),
    "gelu_new": lambda x: x * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x / (1 + np.exp(-x)),
}
ACTIVATIONS |= {"gelu_pytorch_tanh": ACTIVATIONS["gelu_new"], "swish": ACTIVATIONS["silu"]}


def write_bert(folder: Path, pieces, **described) -> None:
    """Writes a BERT classifier with random weights so large that it matters what is computed.

    Args:
        folder: is made.
        pieces: its tokenizer.
        described: fields of `config.json` that replace the usual ones.
    """
    config = {
        "model_type": "bert", "architectures": ["BertForSequenceClassification"], "vocab_size": len(pieces.vocabulary),
        "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48,
        "max_position_embeddings": 32, "type_vocab_size": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-12,
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "pad_token_id": pieces.pad_id, "num_labels": 3,
        **described,
    }  # fmt: skip
    random = np.random.default_rng(0)
    width, wide = config["hidden_size"], config["intermediate_size"]

    def dense(name: str, inputs: int, outputs: int, scale: float = 1.0) -> dict[str, np.ndarray]:
        weight = random.normal(0, scale / math.sqrt(inputs), (outputs, inputs))
        return {f"{name}.weight": weight, f"{name}.bias": random.normal(0, 0.3, outputs)}

    def norm(name: str) -> dict[str, np.ndarray]:
        return {f"{name}.weight": random.normal(1, 0.2, width), f"{name}.bias": random.normal(0, 0.2, width)}

    tables = {"word": config["vocab_size"], "position": config["max_position_embeddings"], "token_type": 2}
    tensors = {
        # Small, so that the first norm's epsilon counts.
        f"bert.embeddings.{name}_embeddings.weight": random.normal(0, 0.02, (rows, width))
        for name, rows in tables.items()
    }
    tensors |= norm("bert.embeddings.LayerNorm") | dense("bert.pooler.dense", width, width, scale=0.5)
    for number in range(config["num_hidden_layers"]):
        name = f"bert.encoder.layer.{number}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            tensors |= dense(f"{name}.attention.{part}", width, width)
        tensors |= dense(f"{name}.intermediate.dense", width, wide, scale=2.0)
        tensors |= dense(f"{name}.output.dense", wide, width, scale=2.0)
        tensors |= norm(f"{name}.attention.output.LayerNorm") | norm(f"{name}.output.LayerNorm")
    tensors |= dense("classifier", width, config["num_labels"], scale=6.0)
    folder.mkdir(parents=True)
    save_file(
        {name: np.float32(value) for name, value in tensors.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    (folder / "config.json").write_text(json.dumps(config))
    pieces.save(folder)


def logits(folder: Path, inputs: dict[str, np.ndarray], **described) -> np.ndarray:
    """Logits [batch, classes] of a classifier.

    Args:
        folder: in Hugging Face's format.
        inputs: `token_ids`, `segment_ids` and `padding_mask`, each [batch, length].
        described: fields that replace those of `config.json`.
    """
    config = json.loads((folder / "config.json").read_text()) | described
    tensors = {name: np.float64(value) for name, value in load_file(folder / "model.safetensors").items()}
    heads, epsilon, activate = (
        config["num_attention_heads"],
        config["layer_norm_eps"],
        ACTIVATIONS[config["hidden_act"]],
    )

    def dense(x: np.ndarray, name: str) -> np.ndarray:
        return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)
        return scaled * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]

    def split(x: np.ndarray) -> np.ndarray:
        return x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)

    ids, segments, mask = (np.asarray(inputs[name]) for name in ("token_ids", "segment_ids", "padding_mask"))
    tables = [tensors[f"bert.embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")]
    x = norm(tables[0][ids] + tables[1][: ids.shape[1]] + tables[2][segments], "bert.embeddings.LayerNorm")
    for number in range(config["num_hidden_layers"]):
        name = f"bert.encoder.layer.{number}"
        queries, keys, values = (split(dense(x, f"{name}.attention.self.{part}")) for part in ("query", "key", "value"))
        scores = queries @ keys.transpose(0, 1, 3, 2) / math.sqrt(queries.shape[-1])
        weights = np.exp(scores - scores.max(-1, keepdims=True)) * mask[:, None, None, :]
        context = (weights / weights.sum(-1, keepdims=True)) @ values
        context = context.transpose(0, 2, 1, 3).reshape(x.shape)
        x = norm(x + dense(context, f"{name}.attention.output.dense"), f"{name}.attention.output.LayerNorm")
        hidden = activate(dense(x, f"{name}.intermediate.dense"))
        x = norm(x + dense(hidden, f"{name}.output.dense"), f"{name}.output.LayerNorm")
    return dense(np.tanh(dense(x[:, 0], "bert.pooler.dense")), "classifier")
