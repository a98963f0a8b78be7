"""Presets that somebody else has written: damaged, absurd, or leading out of their folder. Each is refused in one line."""

import json
import os
import shutil
import tracemalloc

import numpy as np
import pytest

from lmworks.configs.errors import UserError
from lmworks.configs.schema import Model
from lmworks.models import text_classification
from lmworks.models.checkpoint_files import check_finite
from lmworks.models.huggingface import tensors_of
from lmworks.models.preset_checks import check_files, check_for_task
from lmworks.models.preset_kinds import HUGGING_FACE, KERAS_HUB, keras_hub_presets
from lmworks.models.tokenizer import open_causal_pieces, open_tokenizer, open_wordpiece
from lmworks.models.wordpiece import WordPiece  # noqa: F401  # so that no test measures the import of TensorFlow
from tests.models.small_folders import WORDS, bert_folder, bert_shapes, gpt2_folder, safetensors

WORD, QUERY = "embeddings.word_embeddings.weight", "encoder.layer.1.attention.self.query.weight"
FLOATS = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def refused(action, *words):
    """The message of a refusal, which is one line and takes little memory."""
    tracemalloc.start()
    with pytest.raises(UserError) as refusal:
        action()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    message = str(refusal.value)
    assert "\n" not in message
    assert len(message) < 600, message
    assert peak < 1 << 24, f"{peak:,} bytes for {message}"
    for word in words:
        assert word in message
    return message


def write(name, content):
    def change(folder):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())

    return change


def configured(**fields):
    def change(folder):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return change


def tensors(**changed):
    return lambda folder: bert_folder(folder, **changed)


def index(name):
    """All tensors in a file of this name, as an index has it."""

    def change(folder):
        (folder / "model.safetensors").rename(folder.parent / "out.safetensors")
        write("model.safetensors.index.json", {"weight_map": dict.fromkeys(bert_shapes(), name)})(folder)

    return change


BAD_NUMBERS = np.full((8, 8), np.nan, np.float32)
ONE_INFINITE = np.zeros((8, 8), np.float32)
ONE_INFINITE[7, 7] = np.inf
FOLDERS = {
    "an index that names a file above": (index("../out.safetensors"), "../out.safetensors", "in this folder"),
    "an index that names an absolute path": (index("/etc/passwd"), "/etc/passwd", "in this folder"),
    "an index that names a folder below": (index("a/out.safetensors"), "in this folder"),
    "an index that names a number": (index(5), "in this folder"),
    "an index that names what is not there": (index("gone.safetensors"), "names gone.safetensors, which is not in"),
    "an index that is a list": (write("model.safetensors.index.json", []), "index.json", "JSON object"),
    "an index without a map": (write("model.safetensors.index.json", {"weight_map": 1}), "no weight_map"),
    "an index of other tensors": (write("model.safetensors.index.json", {"weight_map": {"x": "model.safetensors"}}), "names tensor 'x'"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "has no weights in safetensors files"),
    "a pickle as weights": (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), "has no weights in safetensors"),
    "weights that are a folder": (lambda folder: ((folder / "model.safetensors").unlink(), (folder / "model.safetensors").mkdir()), "model.safetensors", "no such file"),
    "empty weights": (write("model.safetensors", b""), "is no whole safetensors file"),
    "weights of a few bytes": (write("model.safetensors", b"abc"), "is no whole safetensors file"),
    "weights that are cut off": (lambda folder: write("model.safetensors", (folder / "model.safetensors").read_bytes()[:-5])(folder), "it is cut off"),
    "a header of all memory": (write("model.safetensors", safetensors({}, length=2**63)), "its header should have"),
    "a header longer than the file": (write("model.safetensors", safetensors({}, length=1000)), "its header should have"),
    "a header that is no JSON": (write("model.safetensors", safetensors(b"{'a': 1}")), "its header is no JSON"),
    "a header that is no text": (write("model.safetensors", safetensors(b"\xff\xfe\xff")), "its header is no JSON"),
    "a header of brackets": (write("model.safetensors", safetensors(b"[" * 200_000)), "its header is no JSON"),
    "a header that is a list": (write("model.safetensors", safetensors([])), "no JSON object"),
    "a tensor that is a number": (write("model.safetensors", safetensors({"a": 5})), "has the dtype None"),
    "a tensor of another dtype": (write("model.safetensors", safetensors({"a": FLOATS | {"dtype": "OBJECT"}}, bytes(8))), "the dtype 'OBJECT'"),
    "a tensor beyond the file": (write("model.safetensors", safetensors({"a": FLOATS}, bytes(4))), "it is cut off"),
    "a tensor before the file": (write("model.safetensors", safetensors({"a": FLOATS | {"data_offsets": [-8, 0]}}, bytes(8))), "has the shape"),
    "tensors that overlap": (write("model.safetensors", safetensors({"a": FLOATS, "b": FLOATS}, bytes(8))), "begins within another"),
    "a tensor of other bytes than its shape": (write("model.safetensors", safetensors({"a": FLOATS | {"shape": [1 << 60]}}, bytes(8))), "has 8 bytes"),
    "a shape of truth values": (write("model.safetensors", safetensors({"a": FLOATS | {"shape": [True]}}, bytes(4))), "has the shape"),
    "all NaN": (tensors(**{name: np.full(shape, np.nan, np.float32) for name, shape in bert_shapes().items()}), "holds NaN or infinity"),
    "a tensor of NaN": (tensors(**{QUERY: BAD_NUMBERS}), f"tensor {QUERY} holds NaN or infinity"),
    "one infinity": (tensors(**{QUERY: ONE_INFINITE}), f"tensor {QUERY} holds NaN or infinity"),
    "NaN in half precision": (tensors(**{QUERY: BAD_NUMBERS.astype(np.float16)}), f"tensor {QUERY} holds"),
    "minus one layer": (configured(num_hidden_layers=-1), "num_hidden_layers must be an integer from 1"),
    "no layer": (configured(num_hidden_layers=0), "num_hidden_layers must be an integer from 1"),
    "a billion layers": (configured(num_hidden_layers=10**9), "num_hidden_layers must be an integer from 1"),
    "more layers than there are": (configured(num_hidden_layers=3), "num_hidden_layers 3, and the weights beside it have 2 layers"),
    "layers as text": (configured(num_hidden_layers="2"), "num_hidden_layers must be"),
    "layers as a fraction": (configured(num_hidden_layers=2.0), "num_hidden_layers must be"),
    "layers that are true": (configured(num_hidden_layers=True), "num_hidden_layers must be"),
    "layers that are null": (configured(num_hidden_layers=None), "lacks num_hidden_layers"),
    "a width without end": (configured(hidden_size=10**12), "says that tensor", "of the shape"),
    "a width of another model": (configured(hidden_size=6), "says that tensor", "of the shape"),
    "heads that do not divide": (configured(num_attention_heads=3), "hidden_size 8 is not divisible by num_attention_heads 3"),
    "a vocabulary without end": (configured(vocab_size=10**12), WORD),
    "positions without end": (configured(max_position_embeddings=10**12), "embeddings.position_embeddings.weight"),
    "segments without end": (configured(type_vocab_size=10**12), "embeddings.token_type_embeddings.weight"),
    "an inner width without end": (configured(intermediate_size=10**12), "intermediate.dense.weight"),
    "a tensor of another shape": (tensors(**{QUERY: np.zeros((4, 16), np.float32)}), f"tensor {QUERY} is of the shape [8, 8], and it is of [4, 16]"),
    "a tensor that is missing": (tensors(**{QUERY: None}), f"have no tensor {QUERY}"),
    "tensors of something else": (lambda folder: write("model.safetensors", safetensors({"x": FLOATS}, bytes(8)))(folder), f"have no tensor {WORD}"),
    "a config that is a list": (write("config.json", []), "config.json", "JSON object"),
    "a config that is cut off": (write("config.json", b'{"model_type": "bert", "vocab'), "config.json", "is not JSON"),
    "a config of brackets": (write("config.json", b"[" * 200_000), "config.json", "nested too deeply"),
    "a config that is no text": (write("config.json", b"\xff\xfe"), "config.json", "is not JSON in UTF-8"),
    "a config that is a folder": (lambda folder: ((folder / "config.json").unlink(), (folder / "config.json").mkdir()), "config.json", "must be a file"),
    "a kind that is a number": (configured(model_type=5), "model_type must be a text"),
    "a config of two formats": (configured(registered_name="keras_hub>BertBackbone", class_name="BertBackbone", config={}), "both registered_name"),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_in_hugging_faces_format(name, tmp_path):
    change, *words = FOLDERS[name]
    folder = bert_folder(tmp_path / "preset")
    check_files(folder)
    change(folder)
    refused(lambda: check_files(folder), "model.preset: ", *words)


def test_weights_are_looked_at_to_their_end(tmp_path):
    """A run looks at a part of them at once, and training at all of them before it begins."""
    words = np.zeros((12, 8), np.float32)
    words[11, 7] = np.nan
    folder = bert_folder(tmp_path, **{WORD: words})
    check_finite(folder, 16)
    refused(lambda: check_finite(folder), f"tensor {WORD} holds NaN")


def test_links_within_a_cache_go_on_to_work(tmp_path):
    """The client of Hugging Face's hub keeps files under their hashes, and folders of links to them."""
    blobs, snapshot = bert_folder(tmp_path / "blobs"), tmp_path / "snapshots/1"
    snapshot.mkdir(parents=True)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    check_files(snapshot)
    check_for_task(snapshot, "text_classification", 16)
    assert tensors_of(snapshot, WORD)[WORD].shape == (12, 8)


def test_several_files_are_one_model(tmp_path):
    from safetensors.numpy import save_file

    folder = bert_folder(tmp_path)
    whole = tensors_of(folder, "")
    parts = {name: f"part-{place % 2}.safetensors" for place, name in enumerate(whole)}
    for part in set(parts.values()):
        save_file({name: value for name, value in whole.items() if parts[name] == part}, folder / part)
    (folder / "model.safetensors").unlink()
    write("model.safetensors.index.json", {"weight_map": parts})(folder)
    check_files(folder)
    read = tensors_of(folder, "")
    assert all(np.array_equal(read[name], value) for name, value in whole.items())


def test_a_decoder_has_its_shapes_too(tmp_path):
    folder = gpt2_folder(tmp_path)
    check_files(folder)
    check_for_task(folder, "causal_lm", 16)
    configured(n_inner=33)(folder)
    refused(lambda: check_files(folder), "tensor h.0.mlp.c_fc.weight is of the shape [8, 33], and it is of [8, 32]")


TASKS = [
    ("a BERT for generation", "causal_lm", bert_folder, 16, "model_type 'bert'; causal_lm reads gpt2, llama"),
    ("a GPT-2 for classes", "text_classification", gpt2_folder, 16, "model_type 'gpt2'; text_classification reads bert, distilbert"),
    ("a GPT-2 for masks", "masked_lm", gpt2_folder, 16, "model_type 'gpt2'; masked_lm reads bert"),
    ("a BERT that is too short", "text_classification", bert_folder, 17, "preprocess.sequence_length: 17 is above the model's 16 positions"),
    ("a GPT-2 that is too short", "causal_lm", gpt2_folder, 17, "preprocess.sequence_length: 17 is above the model's 16 positions"),
]  # fmt: skip


@pytest.mark.parametrize(("task", "make", "length", "words"), [row[1:] for row in TASKS], ids=[row[0] for row in TASKS])
def test_a_preset_that_a_task_cannot_use(task, make, length, words, tmp_path):
    folder = make(tmp_path)
    refused(lambda: check_for_task(folder, task, length), words)


def test_a_tokenizer_of_another_model(tmp_path):
    folder = bert_folder(tmp_path)
    with (folder / "vocab.txt").open("a") as file:
        file.write("another\n")
    refused(lambda: check_for_task(folder, "masked_lm", 16), "has ids up to 12, and the model has 12 embeddings")
    (folder / "vocab.txt").write_text("\n".join(WORDS).replace("[MASK]", "other") + "\n")
    check_for_task(folder, "text_classification", 16)
    refused(lambda: check_for_task(folder, "masked_lm", 16), "vocabulary lacks [MASK]")
    (folder / "vocab.txt").unlink()
    refused(lambda: check_for_task(folder, "masked_lm", 16), "has no tokenizer")


def keras_hub_folder(folder):
    """A BERT in KerasHub's format, without KerasHub."""
    import h5py

    folder.mkdir(parents=True, exist_ok=True)
    sizes = {
        "vocabulary_size": 12,
        "num_layers": 2,
        "num_heads": 2,
        "hidden_dim": 8,
        "intermediate_dim": 16,
        "max_sequence_length": 16,
    }
    described = {"module": "keras_hub.src.models.bert.bert_backbone", "class_name": "BertBackbone", "config": sizes, "registered_name": "keras_hub>BertBackbone"}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(described))
    with h5py.File(folder / "model.weights.h5", "w") as file:
        for name, shape in {
            "embedding": (12, 8),
            "position_embedding": (16, 8),
            "encoder": (8, 16),
            "encoder_1": (8, 16),
        }.items():
            file[f"layers/{name}/vars/0"] = np.zeros(shape, np.float32)
    return folder


def sized(**fields):
    def change(folder):
        path = folder / "config.json"
        described = json.loads(path.read_text())
        described["config"] |= fields
        path.write_text(json.dumps(described))

    return change


def stored(change, name="model.weights.h5"):
    def apply(folder):
        import h5py

        with h5py.File(folder / name, "a") as file:
            change(h5py, file)

    return apply


def external(h5py, file):
    file["layers/embedding/vars/1"] = h5py.ExternalLink("/etc/passwd", "/")


def virtual(h5py, file):
    layout = h5py.VirtualLayout((8,), "f4")
    layout[:] = h5py.VirtualSource("/out.h5", "data", (8,))
    file.create_virtual_dataset("layers/embedding/vars/1", layout)


def cyclic(h5py, file):
    file["layers/embedding/again"] = file["layers"]


KERAS_HUB_FOLDERS = {
    "minus one layer": (sized(num_layers=-1), "num_layers must be an integer above 0"),
    "a billion layers": (sized(num_layers=10**9), "num_layers 1,000,000,000 is more than the weights"),
    "a width without end": (sized(hidden_dim=10**12), "hidden_dim 1,000,000,000,000 is more than the weights"),
    "positions without end": (sized(max_sequence_length=10**12), "and the weights beside it have 16 positions"),
    "a size that is an object": (sized(vocabulary_size={"class_name": "Lambda"}), "vocabulary_size must be an integer"),
    "a class of another package": (configured(registered_name="os>BertBackbone"), "registered_name is not that of KerasHub's"),
    "a class without sizes": (configured(config=None), "has no class_name and config"),
    "no weights at all": (lambda folder: (folder / "model.weights.h5").unlink(), "is more than the weights"),
    "weights that are no HDF5": (write("model.weights.h5", b"\x89HDF nothing"), "is no whole HDF5 file"),
    "weights that are cut off": (lambda folder: write("model.weights.h5", (folder / "model.weights.h5").read_bytes()[:900])(folder), "model.weights.h5"),
    "a link to another file": (stored(external), "layers/embedding/vars/1 is a link to another place"),
    "a soft link": (stored(lambda h5py, file: file.update({"x": h5py.SoftLink("/layers")})), "x is a link"),
    "numbers in another file": (stored(virtual), "has its numbers in another file"),
    "bytes of another file": (stored(lambda h5py, file: file.create_dataset("x", (4,), "f4", external=[("/etc/passwd", 0, 16)])), "has its numbers in another file"),
    "a dataset of all memory": (stored(lambda h5py, file: file.create_dataset("x", (1 << 40,), "f4", chunks=(1 << 10,))), "and has not"),
    "a group within itself": (stored(cyclic), "under another name too"),
    "NaN": (stored(lambda h5py, file: file["layers/encoder/vars/0"].write_direct(np.full((8, 16), np.nan, np.float32))), "tensor layers/encoder/vars/0 holds NaN"),
    "NaN in a head": (lambda folder: (shutil.copy(folder / "model.weights.h5", folder / "task.weights.h5"), stored(lambda h5py, file: file["layers/encoder/vars/0"].write_direct(np.full((8, 16), np.nan, np.float32)), "task.weights.h5")(folder)), "task.weights.h5: tensor layers/encoder/vars/0 holds NaN"),
    "shards in another folder": (lambda folder: ((folder / "model.weights.h5").unlink(), write("model.weights.json", {"weight_map": {"a": ["../out.weights.h5"]}})(folder)), "'../out.weights.h5', which is no file in this folder"),
}  # fmt: skip


@pytest.mark.parametrize("name", KERAS_HUB_FOLDERS)
def test_a_folder_in_keras_hubs_format(name, tmp_path):
    change, *words = KERAS_HUB_FOLDERS[name]
    folder = keras_hub_folder(tmp_path)
    check_files(folder)
    change(folder)
    refused(lambda: check_files(folder), "model.preset: ", *words)


BROKEN = {
    "cut off": b'{"model": {"type": "BPE", "vo',
    "a list": b"[]",
    "no text": b"\xff\xfe\x00",
    "brackets": b"[" * 200_000,
    "a model that is a number": b'{"model": 5}',
    "a model without a vocabulary": b'{"model": {"type": "BPE", "merges": []}}',
    "a vocabulary that is a list": b'{"model": {"type": "BPE", "vocab": [["a", 1]], "merges": []}}',
    "ids that are text": b'{"model": {"type": "BPE", "vocab": {"a": "x"}, "merges": []}}',
    "an id without end": b'{"model": {"type": "BPE", "vocab": {"a": 1e99}, "merges": []}}',
    "an id of all memory": b'{"model": {"type": "BPE", "vocab": {"a": 999999999999}, "merges": []}}',
    "merges of three": b'{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "a", "a"]]}}',
    "merges that are numbers": b'{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [1]}}',
    "added tokens that are numbers": b'{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "added_tokens": [1]}',
    "a decoder that is text": b'{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "decoder": "x"}',
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_tokenizer_json(name, tmp_path):
    folder = gpt2_folder(tmp_path)
    (folder / "tokenizer.json").write_bytes(BROKEN[name])
    refused(lambda: open_causal_pieces(folder), "tokenizer.json")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("merges.txt", b"\xff\xfe"),
        ("merges.txt", b"#version: 0.2\na b c\n"),
        ("vocab.json", b'{"a": [1]}'),
        ("vocab.json", b'{"a"'),
        ("vocab.json", b"[" * 200_000),
        ("tokenizer_config.json", b"[]"),
        ("generation_config.json", b"nothing"),
    ],
)
def test_other_broken_files_of_a_bpe(file, content, tmp_path):
    folder = gpt2_folder(tmp_path)
    if file in ("merges.txt", "vocab.json"):
        (folder / "tokenizer.json").unlink()
    (folder / file).write_bytes(content)
    refused(lambda: open_causal_pieces(folder), file)


@pytest.mark.parametrize("content", [b"", b"nothing", b"\x0a\x05", bytes(100), b"\xff" * 100])
def test_a_broken_sentencepiece_model(content, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(content)
    refused(lambda: open_causal_pieces(tmp_path), "tokenizer.model", "is no SentencePiece model")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("vocab.txt", b"\xff\xfe"),
        ("vocab.txt", b""),
        ("tokenizer_config.json", b'{"do_lower_case"'),
        ("tokenizer.json", b'{"model": {"type": "WordPiece", "vocab": 5}, "normalizer": {"type": "BertNormalizer"}}'),
        ("tokenizer.json", b'{"class_name": "BertTokenizer"}'),
        ("tokenizer.json", b'{"class_name": 5, "config": {}}'),
    ],
)
def test_broken_files_of_a_wordpiece(file, content, tmp_path):
    folder = bert_folder(tmp_path)
    (folder / file).write_bytes(content)
    message = refused(lambda: open_wordpiece(folder), str(folder))
    assert file in message or content == b"" or b"class_name" in content


def test_names_are_read_as_keras_hub_has_them():
    """Without an import of KerasHub: all names of the families that are taken, in the family of their class."""
    import keras_hub

    presets = keras_hub_presets()
    assert set(keras_hub.models.Backbone.presets) <= presets.keys()
    for names in KERAS_HUB.values():
        classes = [getattr(keras_hub.models, f"{name}Backbone") for name in names]
        for kind in classes:
            families = {presets[preset].family.replace("_", "") for preset in kind.presets}
            of_subclasses = {one.__name__ for one in classes if issubclass(one, kind)}
            assert families <= {name.removesuffix("Backbone").lower() for name in of_subclasses}, kind
    assert set(HUGGING_FACE) == set(KERAS_HUB)


@pytest.mark.parametrize(
    "head", [{"classifier.weight": (2, 5), "classifier.bias": (2,)}, {"classifier.weight": (2, 8)}]
)
def test_a_head_that_does_not_fit(head, tmp_path):
    """The backbone is whole; what stands beside it is read later."""
    folder = bert_folder(tmp_path, **{name: np.zeros(shape, np.float32) for name, shape in head.items()})
    check_files(folder)
    settings = Model(preset=str(folder))
    with pytest.raises(UserError) as refusal:
        text_classification.build(settings, str(folder), open_tokenizer(folder), 2)
    assert str(folder) in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("make", "file", "open_tokenizer"),
    [
        (bert_folder, "vocab.txt", open_wordpiece),
        (gpt2_folder, "merges.txt", open_causal_pieces),
        (lambda folder: folder, "tokenizer.model", open_causal_pieces),
    ],
)
def test_a_file_of_any_size_is_not_read_whole(make, file, open_tokenizer, tmp_path):
    folder = make(tmp_path)
    (folder / "tokenizer.json").unlink(missing_ok=True)
    (folder / file).write_bytes(b"")
    os.truncate(folder / file, 1 << 40)  # of holes
    refused(lambda: open_tokenizer(folder), file, "must be a file of less than 256 MiB")
