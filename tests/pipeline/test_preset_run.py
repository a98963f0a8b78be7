"""Presets through all five stages: continued pretraining and a classifier from Hugging Face's folders, a chat from KerasHub's."""

import json
import shutil

import keras_hub
import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from lmworks.models.tokenizer import open_causal_pieces, open_tokenizer
from lmworks.models.wordpiece import train_wordpiece
from lmworks.pipeline.export.continuation import Wish, continue_text
from lmworks.pipeline.export.servable_folder import open_servable
from lmworks.pipeline.packing import DocumentTable
from lmworks.tfx.artifacts import Sequences, read
from tests.bert_reference import logits, write_bert
from tests.conftest import lmworks
from tests.pipeline.corpora import story
from tests.pipeline.test_chat import _chats
from tests.tiny_decoders import backbone, tokenizer_folder
from tests.tiny_reviews import rows


def _run(folder, recipe, rows, *settings):
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = [f"ingest.train={folder}/rows.jsonl", f"model={{preset: {folder}/preset}}", *settings]
    arguments = [f"--config=configs/{recipe}.yaml", f"--root={folder}/runs", *(f"--set={one}" for one in common)]
    done = lmworks("run", "--in_process", *arguments)
    assert done.returncode == 0, done.stderr
    return folder / "runs" / recipe, arguments


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    pieces = tokenizer_folder("Llama3", folder / "tokenizer")
    keras_hub.models.Llama3CausalLM(backbone("Llama3", pieces)).export_to_transformers(str(folder / "preset"))
    shutil.copytree(folder / "tokenizer", folder / "preset", dirs_exist_ok=True)
    return _run(
        folder, "pretrain", [{"text": story(number)} for number in range(120)], "preprocess={sequence_length: 48}",
        "train={steps: 30, batch_size: 8, learning_rate: 0.01, precision: float32}", "export.formats=[saved_model,huggingface]",
    )  # fmt: skip


def test_a_llama_learns_and_is_proved(llama):
    run, _ = llama
    stages = json.loads((run / "run.json").read_text())["stages"]
    assert "gives the evaluated predictions" in stages["export"]["summary"]
    told = json.loads((run / "evaluate/evaluation/metrics.json").read_text())["metrics"]
    assert told["perplexity"]["value"] < 400, "it began above 1,400"
    assert told["bits_per_byte"]["value"] > 0


def test_preview_shows_where_a_document_begins(llama):
    _, arguments = llama
    done = lmworks("preview", *arguments)
    assert done.returncode == 0, done.stderr
    assert "<|end|><|begin|>⏎" in done.stdout


def test_a_llama_streams_what_it_generates(llama):
    run, _ = llama
    served = open_servable(run / "export/servable").signatures
    pieces = open_causal_pieces(run / "preprocess/sequences/tokenizer")
    assert (pieces.begin_id, pieces.end_ids) == (1, (0, 3))
    text = served["generate"](
        text=tf.constant(["The end of"]), tokens=tf.constant(12), temperature=tf.constant(0.0), top_k=tf.constant(0),
        top_p=tf.constant(1.0), seed=tf.constant(0),
    )["text"]  # fmt: skip
    assert "".join(continue_text(served, "The end of", Wish(tokens=12))) == text.numpy()[0].decode()
    ids = served["tokenize"](text=tf.constant(["12 éa!\n\n x"]))["token_ids"].numpy()[0].tolist()
    assert ids == pieces.encode(["12 éa!\n\n x"])[0].tolist()


def test_a_llama_is_written_for_others(llama):
    run, _ = llama
    folder = run / "export/servable/huggingface"
    described = json.loads((folder / "config.json").read_text())
    assert (described["model_type"], described["bos_token_id"], described["eos_token_id"]) == ("llama", 1, [0, 3])
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == [0, 3]
    assert open_causal_pieces(folder).encode(["x 12"])[0].tolist() == (
        open_causal_pieces(run / "train/model").encode(["x 12"])[0].tolist()
    )


@pytest.fixture(scope="module")
def gemma(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gemma")
    pieces = tokenizer_folder("Gemma", folder / "tokenizer")
    kind = keras_hub.models.GemmaCausalLM
    tokenizer = pieces.keras_hub_tokenizer(kind.preprocessor_cls.tokenizer_cls)
    model = kind(backbone("Gemma", pieces), kind.preprocessor_cls(tokenizer))
    model.save_to_preset(str(folder / "preset"))
    return _run(
        folder, "instruct", [{"messages": chat} for chat in _chats()], "preprocess.sequence_length=96",
        "train={steps: 40, batch_size: 8, accumulate: 1, learning_rate: 0.01, precision: float32}", "export.formats=[saved_model]",
    )[0]  # fmt: skip


@pytest.mark.slow  # a whole run
def test_a_gemma_learns_to_answer_and_is_proved(gemma):
    stages = json.loads((gemma / "run.json").read_text())["stages"]
    assert "gives the evaluated predictions" in stages["export"]["summary"]
    told = json.loads((gemma / "evaluate/evaluation/metrics.json").read_text())["metrics"]
    assert told["perplexity"]["value"] < 300, "it began above 1,100"


@pytest.mark.slow  # a whole run
def test_tokens_of_a_chat_are_those_of_the_whole_text(gemma):
    sequences = read(Sequences, (gemma / "preprocess/sequences").resolve())
    assert sequences.properties["tokenizer"] == "sentencepiece"
    table, pieces = DocumentTable(sequences, "train"), open_causal_pieces(sequences.path / "tokenizer")
    for document in range(10):
        tokens, learnt = table.tokens(document), table.targets(document)
        text = pieces.decode(tokens)
        assert pieces.encode([text])[0].tolist() == tokens.tolist()
        assert pieces.continuation(tokens[learnt]).startswith("It is ")
        assert np.diff(np.flatnonzero(learnt)).max() == 1


@pytest.mark.slow  # a whole run
def test_a_gemma_opens_with_kerashub_alone(gemma):
    model = keras_hub.models.CausalLM.from_preset(str(gemma / "train/model"))
    assert isinstance(model.generate("Question", max_length=12), str)
    done = lmworks("predict", f"--servable={gemma}/export/servable", "--text=Question 900: which colour?", "--tokens=9")
    assert json.loads(done.stdout)["continuation"]


@pytest.mark.slow  # a whole run
def test_a_bert_computes_what_its_config_says_through_all_stages(tmp_path):
    """Trained fused, evaluated, served and written: always the ReLU and the epsilon of the folder that it began with."""
    table = rows(300)
    write_bert(
        tmp_path / "preset",
        train_wordpiece([row["text"] for row in table], 120),
        hidden_act="relu",
        layer_norm_eps=1e-3,
    )
    run, _ = _run(
        tmp_path, "classify", table, "preprocess.sequence_length=24", "evaluate.thresholds={accuracy: {min: 0.8}}",
        "train={steps: 60, batch_size: 16, learning_rate: 0.003, precision: float32}", "export.formats=[saved_model,huggingface]",
    )  # fmt: skip
    stages = json.loads((run / "run.json").read_text())["stages"]
    assert "gives the evaluated predictions" in stages["export"]["summary"]
    predictions = pq.read_table(run / "evaluate/evaluation/predictions.parquet")
    texts = pq.read_table(run / "ingest/examples/Split-test").select(["id", "text"]).to_pylist()
    text_of = {row["id"]: row["text"] for row in texts}
    tokenizer = open_tokenizer(run / "export/servable/huggingface")
    packed = tokenizer.pack([text_of[name] for name in predictions.column("id").to_pylist()], sequence_length=24)
    inputs = {name: np.array(value) for name, value in tokenizer.to_model_inputs(*packed).items()}
    scores = np.stack(predictions.column("scores").to_numpy())
    written = run / "export/servable/huggingface"
    np.testing.assert_allclose(tf.nn.softmax(logits(written, inputs)), scores, atol=1e-5)
    other = tf.nn.softmax(logits(written, inputs, hidden_act="gelu")).numpy()
    assert np.abs(other - scores).max() > 1e-3, "the test could not fail"
    card = (run / "export/servable/README.md").read_text()
    assert "activation relu (not gelu_new); layer-norm epsilon 0.001 (not 1e-12)" in card
