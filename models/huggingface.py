"""Hugging Face's format: GPT-2, BERT with its masked-language-model head, BERT classifiers, decoders; written, and heads read.

A folder holds `config.json`, `model.safetensors`, the exact tokenizer's files and for GPT-2 `generation_config.json`. The names
of tensors are those of `transformers` (`GPT2LMHeadModel`, `BertForMaskedLM`, `BertForSequenceClassification`).
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmworks.configs.errors import UserError
from lmworks.models.checkpoint_files import WEIGHTS, weight_files
from lmworks.models.json_files import understanding
from lmworks.models.preset import left_out
from lmworks.models.preset_kinds import WRITTEN_DECODERS
from lmworks.models.safetensors_header import read_header
from lmworks.models.transformer_arithmetic import Arithmetic, read_arithmetic

if TYPE_CHECKING:
    import keras

    from lmworks.models.tokenizer import CausalPieces
    from lmworks.models.wordpiece import WordPiece

Tensors = dict[str, np.ndarray]


def write(
    model: keras.Model, pieces: CausalPieces | WordPiece, sequence_length: int, folder: Path, labels: Sequence[str] = ()
) -> None:
    """Writes a task's model with its tokenizer.

    Args:
        model: a KerasHub BertMaskedLM, BertTextClassifier, GPT2CausalLM or one of the decoders that KerasHub can write.
        pieces: the exact tokenizer.
        sequence_length: most tokens of a text, for `model_max_length`.
        folder: is made.
        labels: of a classifier, in the order of its logits.

    Raises:
        UserError: Hugging Face has no such architecture here.
    """
    from safetensors.numpy import save_file

    kind = type(model).__name__
    writers = {"GPT2CausalLM": _gpt2, "BertMaskedLM": _bert_masked, "BertTextClassifier": _bert_classifier}
    writers |= {f"{name}CausalLM": _decoder for name in WRITTEN_DECODERS}
    if kind not in writers:
        raise UserError(
            f"export.formats: huggingface is written for {', '.join(writers)} in this version, and this is a {kind}"
        )
    tensors, config = writers[kind](model)
    config |= _special(pieces)
    if labels:
        config["id2label"] = {str(index): label for index, label in enumerate(labels)}
        config["label2id"] = {label: index for index, label in enumerate(labels)}
    folder.mkdir(parents=True, exist_ok=True)
    plain = {name: np.ascontiguousarray(value, np.float32) for name, value in tensors.items()}
    save_file(plain, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False), encoding="utf-8")
    pieces.save(folder)
    settings = folder / "tokenizer_config.json"
    told = json.loads(settings.read_text(encoding="utf-8")) | {"model_max_length": sequence_length}
    settings.write_text(json.dumps(told, indent=1), encoding="utf-8")
    if kind.endswith("CausalLM"):
        ends = {name: config[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        (folder / "generation_config.json").write_text(json.dumps(ends, indent=2), encoding="utf-8")


def _special(pieces: Any) -> dict[str, Any]:
    if hasattr(pieces, "end_id"):
        ends = list(pieces.end_ids) if len(pieces.end_ids) > 1 else pieces.end_id
        return {"bos_token_id": pieces.begin_id, "eos_token_id": ends, "pad_token_id": pieces.pad_id}
    return {"pad_token_id": pieces.pad_id}


def _computed(model: keras.Model) -> Arithmetic:
    """What a BERT or GPT-2 computes, as one config can say it.

    Raises:
        UserError: its head computes something else than its layers.
    """
    computed = read_arithmetic(model)
    assert computed is not None
    layers = (computed.activation, computed.layer_norm_epsilon)
    head = (computed.head_activation, computed.head_layer_norm_epsilon)
    if head not in (layers, (None, None)):
        raise UserError(
            "export.formats: huggingface: its config.json has one hidden_act and one layer_norm_eps, and this model's layers "
            f"compute {layers[0]} with {layers[1]}, its head {head[0]} with {head[1]}; train it anew with this version"
        )
    return computed


def _value(variable: Any) -> np.ndarray:
    return np.asarray(variable.numpy(), np.float32)


def _norm(layer: Any, name: str) -> Tensors:
    return {f"{name}.weight": _value(layer.gamma), f"{name}.bias": _value(layer.beta)}


def _attention(layer: Any) -> tuple[list[tuple[np.ndarray, np.ndarray]], tuple[np.ndarray, np.ndarray]]:
    """Kernels [width, width] and biases [width]: of query, key and value, and of the output."""
    attention = layer._self_attention_layer
    inputs = (attention._query_dense, attention._key_dense, attention._value_dense)
    output = attention._output_dense
    width = output.kernel.shape[-1]
    projections = [(_value(one.kernel).reshape(width, -1), _value(one.bias).reshape(-1)) for one in inputs]
    return projections, (_value(output.kernel).reshape(-1, width), _value(output.bias))


def _gpt2(model: keras.Model) -> tuple[Tensors, dict[str, Any]]:
    backbone, computed = model.backbone, _computed(model)
    found = {
        "transformer.wte.weight": _value(backbone.token_embedding.embeddings),
        "transformer.wpe.weight": _value(backbone.position_embedding.position_embeddings),
        **_norm(backbone.layer_norm, "transformer.ln_f"),
    }
    for number, layer in enumerate(backbone.transformer_layers):
        name = f"transformer.h.{number}"
        projections, output = _attention(layer)
        found |= _norm(layer._self_attention_layer_norm, f"{name}.ln_1")
        found |= _norm(layer._feedforward_layer_norm, f"{name}.ln_2")
        wide, narrow = layer._feedforward_intermediate_dense, layer._feedforward_output_dense
        # GPT-2's matrices stand as [in, out], unlike BERT's.
        found |= {
            f"{name}.attn.c_attn.weight": np.concatenate([kernel for kernel, _ in projections], axis=1),
            f"{name}.attn.c_attn.bias": np.concatenate([bias for _, bias in projections]),
            f"{name}.attn.c_proj.weight": output[0],
            f"{name}.attn.c_proj.bias": output[1],
            f"{name}.mlp.c_fc.weight": _value(wide.kernel),
            f"{name}.mlp.c_fc.bias": _value(wide.bias),
            f"{name}.mlp.c_proj.weight": _value(narrow.kernel),
            f"{name}.mlp.c_proj.bias": _value(narrow.bias),
        }
    dropouts = dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), float(backbone.dropout))
    return found, {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": backbone.vocabulary_size,
        "n_positions": backbone.max_sequence_length,
        "n_embd": backbone.hidden_dim,
        "n_layer": backbone.num_layers,
        "n_head": backbone.num_heads,
        "n_inner": backbone.intermediate_dim,
        "activation_function": computed.activation,
        "layer_norm_epsilon": computed.layer_norm_epsilon,
        "tie_word_embeddings": True,
        **dropouts,
    }


_CAPS = {"final_logit_soft_cap": None, "attention_logit_soft_cap": None}
_TAKEN_FOR_GRANTED: dict[str, dict[str, Any]] = {
    "QwenBackbone": {"use_sliding_window_attention": False},
    "GemmaBackbone": {
        **_CAPS,
        "use_post_ffw_norm": False,
        "use_post_attention_norm": False,
        "use_sliding_window_attention": False,
    },
    "Gemma3Backbone": {
        **_CAPS,
        "use_query_key_norm": True,
        "use_post_ffw_norm": True,
        "use_post_attention_norm": True,
        "use_bidirectional_attention": False,
        "is_embedding_model": False,
    },
}
"""What KerasHub's writers do not say of a backbone, and a reader of their folder takes it to be."""


def _decoder(model: keras.Model) -> tuple[Tensors, dict[str, Any]]:
    """As KerasHub writes it, with what it leaves out of the config.

    Raises:
        UserError: KerasHub would write another model than this one.
    """
    import keras_hub

    backbone = model.backbone
    lost = [
        f"{name} {value}"
        for name, granted in _TAKEN_FOR_GRANTED.get(type(backbone).__name__, {}).items()
        if (value := getattr(backbone, name)) != granted
    ]
    gemma = type(backbone).__name__ in ("GemmaBackbone", "Gemma3Backbone")
    computed = read_arithmetic(model) if gemma else None
    lost += ["norms with several epsilons"] if gemma and computed is None else []
    if lost:
        raise UserError(f"export.formats: huggingface: KerasHub cannot write {', '.join(lost)}")
    if type(backbone) is keras_hub.models.LlamaBackbone:  # the same model; only Llama 3's class has a writer
        copy = keras_hub.models.Llama3Backbone.from_config({**backbone.get_config(), **left_out(backbone)})
        copy.set_weights(backbone.get_weights())
        model = keras_hub.models.Llama3CausalLM(copy)
    with tempfile.TemporaryDirectory() as folder:
        model.preprocessor = None
        model.export_to_transformers(folder)
        found = tensors_of(Path(folder), "")
        config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    if config["model_type"] == "mistral" and backbone.head_dim:
        config["head_dim"] = backbone.head_dim
    if config["model_type"] == "qwen2":  # KerasHub's own reader insists on them
        config |= {"use_sliding_window": False, "sliding_window": None}
    # Of Mistral and Qwen; a Llama's `rope_position_scaling_factor` does nothing.
    if (factor := getattr(backbone, "rope_scaling_factor", 1.0)) != 1.0:
        config["rope_scaling"] = {"rope_type": "linear", "factor": factor}
    if computed is not None:
        config["rms_norm_eps"] = computed.layer_norm_epsilon
    if config["model_type"] == "gemma3_text":  # whatever the backbone's `query_head_dim_normalize`: no layer gets it
        config["query_pre_attn_scalar"] = backbone.head_dim
    if config["model_type"] == "gemma":
        config["rope_theta"] = 10_000.0
        # The first is what transformers 5 reads, the second what older ones do.
        config |= dict.fromkeys(("hidden_act", "hidden_activation"), "gelu_pytorch_tanh")
        # KerasHub turns the queries' matrix and writes the first head of keys and values only.
        for number, layer in enumerate(backbone.transformer_layers):
            name, attention = f"model.layers.{number}.self_attn", layer.attention
            for part in ("query", "key", "value"):
                kernel = _value(getattr(attention, f"{part}_dense").kernel)  # [heads, width, width of a head]
                found[f"{name}.{part[0]}_proj.weight"] = kernel.transpose(0, 2, 1).reshape(-1, kernel.shape[1])
    architectures = {"qwen2": "Qwen2ForCausalLM", "gemma": "GemmaForCausalLM"}
    return found, {"architectures": [architectures.get(config["model_type"])], **config}


def _dense(kernel: np.ndarray, bias: np.ndarray, name: str) -> Tensors:
    return {f"{name}.weight": kernel.T, f"{name}.bias": bias}


def _layer(layer: Any, name: str) -> Tensors:
    return _dense(_value(layer.kernel), _value(layer.bias), name)


def _bert(model: keras.Model) -> tuple[Tensors, dict[str, Any]]:
    backbone, computed = model.backbone, _computed(model)
    embeddings = "bert.embeddings"
    found = {
        f"{embeddings}.word_embeddings.weight": _value(backbone.token_embedding.embeddings),
        f"{embeddings}.position_embeddings.weight": _value(backbone.position_embedding.position_embeddings),
        f"{embeddings}.token_type_embeddings.weight": _value(backbone.segment_embedding.embeddings),
        **_norm(backbone.embeddings_layer_norm, f"{embeddings}.LayerNorm"),
        **_layer(backbone.pooled_dense, "bert.pooler.dense"),
    }
    for number, layer in enumerate(backbone.transformer_layers):
        name = f"bert.encoder.layer.{number}"
        projections, output = _attention(layer)
        for part, (kernel, bias) in zip(("query", "key", "value"), projections, strict=True):
            found |= _dense(kernel, bias, f"{name}.attention.self.{part}")
        found |= _dense(*output, f"{name}.attention.output.dense")
        found |= _norm(layer._self_attention_layer_norm, f"{name}.attention.output.LayerNorm")
        found |= _layer(layer._feedforward_intermediate_dense, f"{name}.intermediate.dense")
        found |= _layer(layer._feedforward_output_dense, f"{name}.output.dense")
        found |= _norm(layer._feedforward_layer_norm, f"{name}.output.LayerNorm")
    return found, {
        "model_type": "bert",
        "vocab_size": backbone.vocabulary_size,
        "hidden_size": backbone.hidden_dim,
        "num_hidden_layers": backbone.num_layers,
        "num_attention_heads": backbone.num_heads,
        "intermediate_size": backbone.intermediate_dim,
        "max_position_embeddings": backbone.max_sequence_length,
        "type_vocab_size": backbone.num_segments,
        "hidden_act": computed.activation,
        "layer_norm_eps": computed.layer_norm_epsilon,
        **dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), float(backbone.dropout)),
    }


_HEAD = "cls.predictions"


def _bert_masked(model: keras.Model) -> tuple[Tensors, dict[str, Any]]:
    found, config = _bert(model)
    head = model.masked_lm_head
    found = {name: value for name, value in found.items() if "pooler" not in name}
    found |= _layer(head._intermediate_dense, f"{_HEAD}.transform.dense")
    found |= _norm(head._intermediate_layer_norm, f"{_HEAD}.transform.LayerNorm")
    found[f"{_HEAD}.bias"] = _value(head._bias)
    return found, config | {"architectures": ["BertForMaskedLM"], "tie_word_embeddings": True}


def _bert_classifier(model: keras.Model) -> tuple[Tensors, dict[str, Any]]:
    found, config = _bert(model)
    found |= _layer(model.output_dense, "classifier")
    return found, config | {"architectures": ["BertForSequenceClassification"], "num_labels": model.num_classes}


@contextlib.contextmanager
def with_pooler(preset: str) -> Iterator[str]:
    """A preset that KerasHub can open: it demands a pooler, which a `BertForMaskedLM` of `transformers` does not have.

    Within it, a folder of such a model is a temporary copy with a pooler of zeros; any other preset is itself.
    """
    from safetensors.numpy import save_file

    folder = Path(preset)
    config = folder / "config.json"
    tensors = (
        tensors_of(folder, "") if config.exists() and '"BertForMaskedLM"' in config.read_text(encoding="utf-8") else {}
    )
    lookup = next((name for name in tensors if name.endswith("embeddings.word_embeddings.weight")), None)
    if lookup is None or any("pooler" in name for name in tensors):
        yield preset
        return
    width = tensors[lookup].shape[1]
    name = lookup.removesuffix("embeddings.word_embeddings.weight") + "pooler.dense"
    with tempfile.TemporaryDirectory() as copy:
        for path in folder.iterdir():
            if path.suffix in (".json", ".txt") and "index" not in path.name:
                shutil.copy(path, copy)
        pooler = {f"{name}.weight": np.zeros((width, width), np.float32), f"{name}.bias": np.zeros(width, np.float32)}
        save_file({**tensors, **pooler}, Path(copy) / WEIGHTS, metadata={"format": "pt"})
        yield copy


def read_masked_head(model: keras.Model, folder: Path) -> bool:
    """Gives a BertMaskedLM the head of a Hugging Face folder, which KerasHub does not read.

    Returns:
        Whether the folder has one.

    Raises:
        UserError: its matrix is not that of the token embeddings.
    """
    tensors = tensors_of(folder, _HEAD)
    if f"{_HEAD}.transform.dense.weight" not in tensors:
        return False
    own = tensors.get(f"{_HEAD}.decoder.weight")
    tied = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("tie_word_embeddings", True)
    if not tied and own is not None and not np.array_equal(own, model.backbone.token_embedding.embeddings.numpy()):
        raise UserError(
            f"model.preset: {folder}: tie_word_embeddings False, and KerasHub's head has no matrix of its own"
        )
    with understanding(folder):
        head = model.masked_lm_head
        head._intermediate_dense.kernel.assign(tensors[f"{_HEAD}.transform.dense.weight"].T)
        head._intermediate_dense.bias.assign(tensors[f"{_HEAD}.transform.dense.bias"])
        norm = f"{_HEAD}.transform.LayerNorm"  # old checkpoints say gamma and beta
        head._intermediate_layer_norm.gamma.assign(tensors.get(f"{norm}.weight", tensors.get(f"{norm}.gamma")))
        head._intermediate_layer_norm.beta.assign(tensors.get(f"{norm}.bias", tensors.get(f"{norm}.beta")))
        head._bias.assign(tensors.get(f"{_HEAD}.bias", tensors.get(f"{_HEAD}.decoder.bias")))
    return True


def read_classifier_head(model: keras.Model, folder: Path) -> bool:
    """Gives a BertTextClassifier the head of a Hugging Face folder, where that has as many classes.

    Returns:
        Whether it did.
    """
    tensors = tensors_of(folder, "classifier.")
    weight = tensors.get("classifier.weight")
    if weight is None or weight.shape[0] != model.num_classes:
        return False
    with understanding(folder):
        model.output_dense.kernel.assign(weight.T)
        model.output_dense.bias.assign(tensors["classifier.bias"])
    return True


def tensors_of(folder: Path, prefix: str) -> Tensors:
    """Tensors of a folder whose names begin so, from one file or several; none where there is no safetensors file.

    Raises:
        UserError: a file is missing or damaged.
    """
    import ml_dtypes  # noqa: F401  # teaches NumPy bfloat16, in which most checkpoints are published
    from safetensors import safe_open

    found: Tensors = {}
    for path in weight_files(folder):
        read_header(path)
        with safe_open(path, framework="numpy") as file:
            found |= {name: file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}  # noqa: SIM118
    return found
