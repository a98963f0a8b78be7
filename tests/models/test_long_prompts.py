"""A prompt that is too long for the model: what is kept, and who says so."""

import json

import numpy as np
import pytest
import tensorflow as tf

from lmworks.configs.schema import Model
from lmworks.models import causal_lm
from lmworks.models.bytepair import BytePair
from lmworks.models.chat import BEGIN, END, QUESTION, question
from lmworks.models.chat_marks import Marks
from lmworks.models.generation import Completer, Generator, Sampling
from lmworks.pipeline.evaluate.gate import gate
from lmworks.pipeline.evaluate.language_report import Generation, write_language_report
from lmworks.pipeline.export import causal_lm as export
from lmworks.pipeline.export.continuation import Wish, continue_text
from tests.models.test_splitting import KINDS, checkpoint
from tests.tiny_decoders import backbone

POSITIONS = 24


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qwen")
    checkpoint(folder, **KINDS["qwen2"], names=["<|endoftext|>", BEGIN, END, "<|eot|>"])
    pieces = BytePair.from_folder(folder).stopping_at(END)
    backbone("Qwen", pieces).save_to_preset(str(folder / "preset"))
    return causal_lm.build(Model(preset="x"), str(folder / "preset"), pieces, POSITIONS), pieces


@pytest.mark.parametrize(
    ("length", "tokens", "head", "expected"),
    [
        (23, 20, 1, [*range(23)]),  # one new token fits
        (24, 6, 1, [0, *range(7, 24)]),  # six fit behind eighteen
        (50, 20, 1, [0, *range(39, 50)]),  # no more new ones than half
        (50, 20, 4, [0, 1, 2, 3, *range(42, 50)]),
        (30, 12, 40, [*range(11), 29]),  # a head that leaves no room is cut itself
    ],
)
def test_what_is_read_of_a_prompt(opened, length, tokens, head, expected):
    generator = Generator(opened[0], (0,), POSITIONS, head)
    prompts = tf.ragged.constant([[*range(length)], [7]], tf.int32)
    read, cut = generator.fit(prompts, tf.constant(tokens))
    assert read.to_list() == [expected, [7]]
    assert cut.numpy().tolist() == [length - len(expected), 0]
    again, none = generator.fit(read, tf.constant(tokens))
    assert again.to_list() == [expected, [7]]
    assert none.numpy().tolist() == [0, 0]


def test_a_completer_reads_marks_and_says_what_it_cut(opened):
    model, pieces = opened
    marks = Marks.of(pieces)
    prompt = f"{QUESTION[0]}Hi{QUESTION[1]}"
    long = "def parse(self, arguments=None): return 1 + 2 " * 2
    completer = Completer(model, pieces, POSITIONS, 4, Sampling(), chat=True)
    first, second = completer.complete([prompt, long])
    assert first.cut == 0
    assert second.cut == 1 + len(pieces.encode([long])[0]) - (POSITIONS - 4)
    ids = [pieces.begin_id, *np.concatenate(marks.encode_rendered([prompt])).tolist()]
    assert ids.count(pieces.vocabulary.index(BEGIN)) == 2
    for new in first.token_ids.tolist():
        logits = causal_lm.logits_of(model, tf.constant([ids])).numpy()[0, -1]
        assert new == int(np.argmax(logits))
        ids.append(new)


@pytest.mark.slow  # a SavedModel, in two processes
def test_predict_says_it(opened, tmp_path, capsys):
    model, pieces = opened
    export.write(model, pieces, POSITIONS, tmp_path / "served", chat=True)
    served = tf.saved_model.load(str(tmp_path / "served")).signatures
    text = "who is it? " * 20
    head = 1 + len(Marks.of(pieces).encode_rendered(QUESTION[:1])[0])
    whole = [pieces.begin_id, *Marks.of(pieces).question(tf.constant([text.strip()])).to_list()[0]]
    read = whole[:head] + whole[len(whole) - (POSITIONS - 6) + head :]
    expected, ids = [], list(read)
    while (
        len(expected) < 6
        and (new := int(np.argmax(causal_lm.logits_of(model, tf.constant([ids])).numpy()[0, -1]))) not in pieces.end_ids
    ):
        expected.append(new)
        ids.append(new)
    assert "".join(continue_text(served, text, Wish(tokens=6))) == pieces.continuation(expected)
    completer = Completer(model, pieces, POSITIONS, 6, Sampling(), chat=True)  # as the evaluation's report has it
    assert completer.token_ids([question(text)])[0].tolist() == expected
    told = capsys.readouterr().err
    assert (
        f"{len(whole) - POSITIONS + 6} of its tokens were cut, behind those that begin it, and {POSITIONS - 6} read"
        in told
    )
    assert "'who is it? who is it? who is it? who is …'" in told
    "".join(continue_text(served, "Hi", Wish(tokens=3)))
    assert "predict" not in capsys.readouterr().err
    found = "".join(continue_text(served, "Hi", Wish(tokens=100)))
    ids = [pieces.begin_id, *Marks.of(pieces).question(tf.constant(["Hi"])).to_list()[0]]
    completer = Completer(model, pieces, POSITIONS, 100, Sampling(), chat=True)
    (new,) = completer.token_ids([question("Hi")])
    assert found == pieces.continuation(new)
    assert len(new) == POSITIONS - len(ids), "the model went on to the end"
    told = f"ends after {len(new)} of 100 new tokens: no more fit behind the {len(ids)} that were read"
    assert told in capsys.readouterr().err


def test_the_report_marks_a_cut_prompt(tmp_path):
    import pyarrow as pa

    from lmworks.configs.schema import EvaluateStage

    texts = pa.chunked_array([pa.array(["x"])])
    ones = np.ones(1)
    config = EvaluateStage(task="causal_lm")
    generations = [Generation("greedy", "whole", "a"), Generation("greedy", "long", "b", 1234)]
    write_language_report(tmp_path, config, {}, [], ones, ones, texts, ["x"], generations, gate({}, {}, "test"))
    page = (tmp_path / "report.html").read_text()
    assert (
        page.count("1,234 tokens of the prompt&#x27;s beginning were cut")
        + page.count("1,234 tokens of the prompt's beginning were cut")
        == 1
    )
    assert json.dumps(page).count("were cut") == 1
