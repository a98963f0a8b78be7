"""Supervised fine-tuning on conversations: what is learnt, and what is served."""

import html
import json
import re

import numpy as np
import pytest

from lmworks.models.bytepair import BytePair
from lmworks.models.chat import before_answer, parts_of, question, render
from lmworks.pipeline.packing import DocumentTable
from lmworks.tfx.artifacts import Sequences, read
from tests.conftest import lmworks

COLOURS = {"sky": "blue", "grass": "green", "snow": "white", "blood": "red", "coal": "black"}


def _chats():
    for number in range(300):
        thing, colour = list(COLOURS.items())[number % 5]
        question = f"Question {number}: which colour has {thing}?"
        yield [
            {"role": "user", "content": question},
            {"role": "assistant", "content": f" It is {colour}, friend {number}.\n"},
        ]


def test_only_the_assistants_words_are_learnt():
    chat = json.dumps(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": " Hello! "},
        ]
    )
    parts = list(parts_of(chat))
    assert [part.text for part in parts if part.learnt] == ["Hello!<|im_end|>\n"]
    assert render(chat) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>\n"
    )


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ("no json", "must be a list of messages"),
        ("[]", "must be a list of messages"),
        ('[{"role": "robot", "content": "x"}]', "message 1 must have a role"),
        ('[{"role": "user", "content": 7}]', "message 1 must have a role"),
        ('[{"role": "user", "content": "Hi"}]', "the assistant says nothing"),
    ],
)
def test_what_is_no_conversation(messages, words):
    with pytest.raises(ValueError, match=words):
        list(parts_of(messages))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat")
    (folder / "chats.jsonl").write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in _chats()))
    settings = [
        f"ingest.train={folder}/chats.jsonl",
        "model={architecture: gpt2, layers: 2, heads: 2, hidden_dim: 64, intermediate_dim: 128, dropout: 0.0}",
        "preprocess={sequence_length: 128, chat: chatml, tokenizer: {train: {kind: bpe, vocabulary_size: 330}}}",
        "train={steps: 250, accumulate: 1, batch_size: 16, learning_rate: 0.01, precision: float32}",
    ]
    done = lmworks(
        "run", "--config=configs/instruct.yaml", f"--root={folder}/runs", *(f"--set={one}" for one in settings)
    )
    assert done.returncode == 0, done.stderr
    return folder / "runs/instruct"


def test_tokens_are_those_of_the_whole_text_and_targets_those_of_answers(run):
    sequences = read(Sequences, (run / "preprocess/sequences").resolve())
    table, pieces = DocumentTable(sequences, "train"), BytePair.from_folder(sequences.path / "tokenizer")
    for document in range(20):
        tokens, learnt = table.tokens(document), table.targets(document)
        text = pieces.decode(tokens)
        assert pieces.encode([text])[0].tolist() == tokens.tolist()
        answer = pieces.decode(tokens[learnt])
        assert answer.startswith("It is ")
        assert answer.endswith(".<|im_end|>")
        assert not np.diff(np.flatnonzero(learnt)).max() > 1


def test_a_question_gets_an_answer(run):
    done = lmworks(
        "predict", f"--servable={run}/export/servable", "--text=Question 900: which colour has snow?", "--tokens=40"
    )
    told = json.loads(done.stdout)["continuation"]
    assert told.startswith("It is ")
    assert "<|im" not in told
    metrics = json.loads((run / "evaluate/evaluation/metrics.json").read_text())["metrics"]
    assert "bits_per_byte" not in metrics
    assert metrics["perplexity"]["value"] < 30
    assert {path.name for path in (run / "export/servable/huggingface").iterdir()} >= {
        "config.json", "model.safetensors", "tokenizer.json", "generation_config.json",
    }  # fmt: skip


def test_the_report_puts_prompts_as_questions_and_ends_at_the_end(run):
    page = html.unescape((run / "evaluate/evaluation/report.html").read_text())
    told = re.findall(r"<pre><b>(.*?)</b>(.*?)</pre>", page, flags=re.DOTALL)
    assert len(told) == 16
    for prompt, answer in told:
        assert re.fullmatch(
            r"<\|im_start\|>user\nQuestion \d+: which colour has \w+\?<\|im_end\|>\n<\|im_start\|>assistant\n", prompt
        )
        assert "<|im" not in answer
    assert sum(answer.startswith("It is ") for _, answer in told) > 12


def test_prompts_of_a_config_and_of_a_conversation():
    chat = json.dumps(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Ho"},
        ]
    )
    assert before_answer(chat) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert before_answer(chat).endswith(question(" Hi\n"))


def test_a_broken_conversation_is_named(tmp_path):
    chats = [json.dumps({"messages": chat}) for chat in _chats()]
    chats[10] = json.dumps({"messages": [{"role": "user", "content": "only a question"}]})
    (tmp_path / "chats.jsonl").write_text("\n".join(chats))
    done = lmworks(
        "run", "--config=configs/instruct.yaml", f"--root={tmp_path}/runs", f"--set=ingest.train={tmp_path}/chats.jsonl",
        "--set=model={architecture: gpt2}", "--set=preprocess.tokenizer.train={kind: bpe, vocabulary_size: 300}",
    )  # fmt: skip
    assert done.returncode == 1
    assert "the assistant says nothing in it" in done.stderr
    assert "Traceback" not in done.stderr
