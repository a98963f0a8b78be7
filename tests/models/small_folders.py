"""Small folders of presets in Hugging Face's format, written without TensorFlow: a BERT with WordPiece, a GPT-2 with its BPE."""

import json
import struct

import numpy as np

from lmworks.models.bytepair import BYTE_CHARACTERS, END_OF_TEXT, BytePair

WIDTH, INNER, LAYERS = 8, 16, 2
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "film", "book", "good", "bad", "fine", "poor", "##s"]
BERT = {
    "model_type": "bert", "architectures": ["BertModel"], "vocab_size": len(WORDS), "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS, "num_attention_heads": 2, "intermediate_size": INNER, "max_position_embeddings": 16,
    "type_vocab_size": 2, "hidden_act": "gelu",
}  # fmt: skip
GPT2 = {
    "model_type": "gpt2", "vocab_size": 257, "n_embd": WIDTH, "n_layer": LAYERS, "n_head": 2, "n_positions": 16, "n_ctx": 16,
    "resid_pdrop": 0.1,
}  # fmt: skip


def _dense(name, size_in, size_out):
    return {f"{name}.weight": (size_out, size_in), f"{name}.bias": (size_out,)}


def _norm(name):
    return {f"{name}.weight": (WIDTH,), f"{name}.bias": (WIDTH,)}


def bert_shapes():
    shapes = {
        "embeddings.word_embeddings.weight": (len(WORDS), WIDTH),
        "embeddings.position_embeddings.weight": (16, WIDTH),
        "embeddings.token_type_embeddings.weight": (2, WIDTH),
        **_norm("embeddings.LayerNorm"),
        **_dense("pooler.dense", WIDTH, WIDTH),
    }
    for number in range(LAYERS):
        layer = f"encoder.layer.{number}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            shapes |= _dense(f"{layer}.attention.{part}", WIDTH, WIDTH)
        shapes |= _dense(f"{layer}.intermediate.dense", WIDTH, INNER) | _dense(f"{layer}.output.dense", INNER, WIDTH)
        shapes |= _norm(f"{layer}.attention.output.LayerNorm") | _norm(f"{layer}.output.LayerNorm")
    return shapes


def gpt2_shapes():
    shapes = {"wte.weight": (257, WIDTH), "wpe.weight": (16, WIDTH), **_norm("ln_f")}
    for number in range(LAYERS):
        layer = f"h.{number}"
        shapes |= _norm(f"{layer}.ln_1") | _norm(f"{layer}.ln_2")
        shapes |= _dense(f"{layer}.attn.c_attn", 3 * WIDTH, WIDTH) | {f"{layer}.attn.c_attn.bias": (3 * WIDTH,)}
        shapes |= _dense(f"{layer}.attn.c_proj", WIDTH, WIDTH)
        shapes |= {f"{layer}.mlp.c_fc.weight": (WIDTH, 4 * WIDTH), f"{layer}.mlp.c_fc.bias": (4 * WIDTH,)}
        shapes |= {f"{layer}.mlp.c_proj.weight": (4 * WIDTH, WIDTH), f"{layer}.mlp.c_proj.bias": (WIDTH,)}
    return shapes


def weights(shapes, seed=0):
    random = np.random.default_rng(seed)
    return {name: random.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}


def bert_folder(folder, config=(), **changed):
    """Writes a BERT; `changed` replaces tensors by name, or drops them where None."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**BERT, **dict(config)}))
    tensors = {name: value for name, value in {**weights(bert_shapes()), **changed}.items() if value is not None}
    save_file(tensors, folder / "model.safetensors")
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return folder


def gpt2_folder(folder, config=(), **changed):
    from safetensors.numpy import save_file

    BytePair([END_OF_TEXT, *BYTE_CHARACTERS], []).save(folder)
    (folder / "config.json").write_text(json.dumps({**GPT2, **dict(config)}))
    save_file({**weights(gpt2_shapes()), **changed}, folder / "model.safetensors")
    return folder


def safetensors(header, data=b"", length=None):
    """The bytes of a file with this header, an object or bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data
