"""Supervised fine-tuning on conversations: what is learnt, and what is served."""

import html
import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmworks.configs.errors import UserError
from lmworks.configs.load import ConfigError, load
from lmworks.configs.schema import IngestStage, PreprocessStage
from lmworks.models.bytepair import BytePair
from lmworks.models.chat import before_answer, parts_of, question, render
from lmworks.pipeline.graph import graph
from lmworks.pipeline.ingest.component import ingest
from lmworks.pipeline.ingest.conversations import with_conversation
from lmworks.pipeline.packing import DocumentTable
from lmworks.pipeline.preprocess.component import preprocess
from lmworks.pipeline.tables import read_batches
from lmworks.tfx.artifacts import Examples, Sequences, Statistics, publish, read
from tests.conftest import lmworks
from tests.pipeline.corpora import artifact

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
        (
            '[{"role": "user", "content": "a <|im_end|> b"}, {"role": "assistant", "content": "x"}]',
            r"message 1 holds <\|im_end\|>, which is the template's own mark",
        ),
        (
            '[{"role": "user", "content": "a"}, {"role": "assistant", "content": "<|im_start|>x"}]',
            "message 2 holds <.im_start",
        ),
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


def test_a_tool_is_read_and_never_learnt():
    chat = [
        {"role": "user", "content": "2 + 2?"},
        {"role": "tool", "content": "4"},
        {"role": "assistant", "content": "Four."},
    ]
    parts = list(parts_of(json.dumps(chat)))
    assert [part.text for part in parts if part.learnt] == ["Four.<|im_end|>\n"]
    assert "<|im_start|>tool\n4<|im_end|>\n" in "".join(part.text for part in parts)


def ingested(tmp_path, rows, name="chats.jsonl", **settings):
    """Examples of conversations, and the reasons of rejects by row."""
    path = tmp_path / name
    if name.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"task": "causal_lm", "chat": "chatml", "text": "messages", "train": str(path), **settings}
    examples = artifact(Examples, tmp_path / "examples")
    ingest(
        config=IngestStage.model_validate(settings),
        examples=examples,
        statistics=artifact(Statistics, tmp_path / "statistics"),
    )
    publish(examples, "examples", {})
    rejects = pq.read_table(examples.path / "rejects.parquet").to_pylist()
    return read(Examples, examples.path), {row["row"]: row["reason"] for row in rejects}


def conversations(examples):
    return {
        text
        for split in examples.properties["splits"]
        for batch in read_batches(examples, split, ["messages"])
        for text in batch.column(0).to_pylist()
    }


def canonical(*turns):
    return json.dumps([{"role": role, "content": content} for role, content in turns], ensure_ascii=False)


EXPECTED = {
    canonical(("system", "Be brief."), ("user", f"Ask {n}\nmore"), ("assistant", f"Answer é {n}")) for n in range(60)
}


def turns(role, content, names=("system", "user", "assistant"), more=None):
    for n in range(60):
        texts = ("Be brief.", f"Ask {n}\nmore", f"Answer é {n}")
        yield [{role: name, content: text, **(more or {})} for name, text in zip(names, texts, strict=True)]


FORMS = {
    "messages": [{"messages": chat, "source": "x"} for chat in turns("role", "content")],
    "messages as text": [{"messages": json.dumps(chat)} for chat in turns("role", "content")],
    "developer": [{"messages": chat} for chat in turns("role", "content", ("developer", "user", "assistant"))],
    "parts": [
        {"messages": [one | {"content": [{"type": "text", "text": one["content"][:3]},
                                         {"type": "text", "text": one["content"][3:]}]} for one in chat]}
        for chat in turns("role", "content")
    ],
    "null calls": [{"messages": chat} for chat in turns("role", "content", more={"tool_calls": None, "weight": 1})],
    "sharegpt": [{"conversations": chat} for chat in turns("from", "value", ("system", "Human", "gpt"))],
    "sharegpt in the text column": [{"messages": chat} for chat in turns("from", "value", ("system", "user", "assistant"))],
    "sharegpt with a system column": [
        {"conversations": chat[1:], "system": "Be brief."} for chat in turns("from", "value", ("system", "human", "gpt"))
    ],
    "alpaca": [
        {"instruction": f"Ask {n}", "input": "more", "output": f"Answer é {n}", "system": "Be brief.", "history": []}
        for n in range(60)
    ],
    "alpaca without input": [
        {"instruction": f"Ask {n}\nmore", "input": None, "output": f"Answer é {n}", "system": "Be brief."}
        for n in range(60)
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_conversations(tmp_path, form, kind):
    examples, rejects = ingested(tmp_path, FORMS[form], f"chats.{kind}")
    assert conversations(examples) == EXPECTED
    assert rejects == {}
    for batch in read_batches(examples, "train"):
        assert set(batch.schema.names) == {"id", "messages", *({"source"} & FORMS[form][0].keys())}


def test_a_form_that_is_named_is_taken(tmp_path):
    rows = [row | {"text": "a rendered prompt"} for row in FORMS["alpaca"]]
    examples, _ = ingested(tmp_path, rows, conversation="alpaca")
    assert conversations(examples) == EXPECTED
    history = {"instruction": "c", "output": "d", "history": [["a", "b"]]}
    (tmp_path / "more").mkdir()
    examples, _ = ingested(tmp_path / "more", [*rows, history])
    assert canonical(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")) in conversations(examples)
    (tmp_path / "other").mkdir()
    with pytest.raises(
        UserError, match=r"no column 'messages' or 'conversations' \(ingest.text, ingest.conv.* has: instr"
    ):
        ingested(tmp_path / "other", FORMS["alpaca"], conversation="sharegpt", max_rejects=0.5)


USER, ANSWER = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}
BAD = [
    ({"messages": [USER]}, "the assistant says nothing in it"),
    ({"messages": []}, "must be a list of messages"),
    ({"messages": "no json"}, "must be a list of messages"),
    ({"messages": ["text"]}, "message 1 must be an object with 'role' and 'content'"),
    ({"messages": [USER, {"role": "assistant"}]}, "message 2 must be an object"),
    ({"messages": [{"role": "robot", "content": "x"}, ANSWER]}, "message 1 has the role 'robot'; known: system, user"),
    ({"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [{"id": 1}]}]}, "message 2 has 'tool_calls'"),
    ({"messages": [USER, {"role": "assistant", "content": None}]}, "message 2 must have a content that is text, and it is null"),
    ({"messages": [USER, ANSWER | {"weight": 0}]}, "message 2 has the weight 0"),
    ({"messages": [USER, ANSWER | {"reasoning_content": "so"}]}, "message 2 has 'reasoning_content'"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, ANSWER]}, "a part of type 'image_url'"),
    ({"messages": [{"role": "user", "content": "a<|im_start|>"}, ANSWER]}, "message 1 holds <|im_start|>"),
    ({"messages": '[{"role": "user", "content": "\\ud800"}, {"role": "assistant", "content": "x"}]'}, "half of a surrogate"),
    ({"conversations": [{"from": "alien", "value": "x"}]}, "message 1 has the role 'alien'; known: system, user"),
    ({"instruction": " ", "output": "x"}, "instruction and input are empty"),
    ({"instruction": "x", "output": ""}, "the assistant says nothing"),
    ({"instruction": "x", "output": "y", "history": "z"}, "history must be a list of [question, answer]"),
    ({"prompt": "x"}, "missing column: no column 'messages' or 'conversations' or 'instruction' with 'output'"),
]  # fmt: skip


def test_bad_conversations_are_rejects_with_file_and_row(tmp_path):
    good = FORMS["messages"] * 4
    rows = [*good, *(row for row, _ in BAD)]
    examples, rejects = ingested(tmp_path, rows, max_rejects=0.2)
    assert sorted(rejects) == [len(good) + 1 + n for n in range(len(BAD))]
    for number, (_, words) in enumerate(BAD, len(good) + 1):
        assert words in rejects[number]
    assert conversations(examples) == EXPECTED
    config = IngestStage.model_validate({"task": "causal_lm", "chat": "chatml", "train": "x"})
    with pytest.raises(ValueError, match="output is no text"):
        with_conversation(config, {"instruction": "x", "output": ["x"]})
    (tmp_path / "strict").mkdir()
    with pytest.raises(
        UserError, match=r"2 of 62 rows refused.*2 × \S*chats.jsonl:61: no conversation: the assistant says"
    ):
        ingested(tmp_path / "strict", [*FORMS["messages"], {"messages": [USER]}, {"messages": [USER, USER]}])


def test_repair_mends_what_is_said_and_not_the_json(tmp_path):
    said = [{"role": "user", "content": "un cafÃ© “x”"}, {"role": "assistant", "content": "ok"}]
    examples, rejects = ingested(tmp_path, [*FORMS["messages"], {"messages": said}], repair=True)
    assert rejects == {}
    assert canonical(("user", 'un café "x"'), ("assistant", "ok")) in conversations(examples)
    said[0]["content"] = "&lt;|im_end|&gt;"
    (tmp_path / "mark").mkdir()
    _, rejects = ingested(tmp_path / "mark", [*FORMS["messages"] * 2, {"messages": said}], repair=True)
    assert "message 1 holds <|im_end|>" in rejects[121]


def test_one_bad_row_ends_no_run_and_what_a_sequence_cuts_is_counted(tmp_path):
    long = " ".join(str(n * n) for n in range(60))
    long_answer = [USER, {"role": "assistant", "content": long}]
    long_question = [{"role": "user", "content": long}, ANSWER]
    rows = [*FORMS["messages"], {"messages": [USER]}, {"messages": long_answer}, {"messages": long_question}]
    examples, rejects = ingested(tmp_path, rows, max_rejects=0.02)
    assert [*rejects] == [61]
    for length, counts, words in (
        (
            128,
            {"longer": 2, "without_target": 1, "without_end": 2},
            "2 conversations longer than 128 tokens, which are cut",
        ),
        (
            24,
            {"longer": 62, "without_target": 61, "without_end": 62},
            "in none does an answer end within the first 24 tokens",
        ),
    ):
        sequences = artifact(Sequences, tmp_path / f"{length}")
        training = {"train": {"kind": "bpe", "vocabulary_size": 280}}
        config = {"task": "causal_lm", "chat": "chatml", "sequence_length": length, "tokenizer": training}
        preprocess(config=PreprocessStage.model_validate(config), examples=examples, sequences=sequences)
        assert sequences.properties["conversations"] == {"all": 62, **counts}
        assert words in sequences.properties["summary"]
        assert "conversation" in sequences.properties["summary"]


def test_conversations_are_told_to_ingest():
    config = load("configs/instruct.yaml")
    assert graph(config)[0].config.chat == "chatml"
    with pytest.raises(ConfigError, match=r"ingest.conversation goes with preprocess.chat"):
        load("configs/pretrain.yaml", ["ingest.train=x", "ingest.conversation=sharegpt"])
