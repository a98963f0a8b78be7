"""`train.attend_across_documents: false`: a packed sequence trains on what its documents, each alone, are evaluated by."""

import keras
import numpy as np
import pytest

from lmworks.configs.errors import UserError
from lmworks.configs.load import load
from lmworks.configs.schema import TrainStage
from lmworks.models import causal_lm
from lmworks.models.tokenizer import open_causal_pieces
from lmworks.pipeline.packing import Packing
from lmworks.pipeline.train.language import Causal
from lmworks.pipeline.train.tensorflow_engine import TensorFlowEngine
from lmworks.pipeline.windows import predictions, windows_of
from tests.pipeline.corpora import corpus, story

LENGTH = 512
MODEL = {"architecture": "gpt2", "layers": 1, "heads": 2, "hidden_dim": 16, "intermediate_dim": 16, "dropout": 0.0}


@pytest.fixture(scope="module")
def stories(tmp_path_factory):
    return corpus(tmp_path_factory.mktemp("stories") / "c", "causal_lm", LENGTH, [story(number) for number in range(10)],
                  tokenizer={"train": {"kind": "bpe", "vocabulary_size": 280}})[1]  # fmt: skip


def _work(sequences, across):
    settings = {"task": "causal_lm", "model": MODEL, "precision": "float32", "batch_size": 2}
    config = TrainStage.model_validate({**settings, "attend_across_documents": across})
    pieces = open_causal_pieces(sequences.path / "tokenizer")
    keras.utils.set_random_seed(2)
    model = causal_lm.build(config.model, None, pieces, LENGTH)
    for variable in model.trainable_variables:  # large enough for neighbours to be seen
        variable.assign(variable + 0.3 * keras.random.normal(variable.shape, seed=len(variable.path)))
    return config, Causal(config, model, pieces, sequences)


def test_training_and_evaluation_have_the_same_loss(stories):
    config, work = _work(stories, False)
    assert work._packing.sequences == 1, "all documents stand in one sequence, so that none is cut"
    windows = [window for number, size in enumerate(work.training.lengths)
               for window in windows_of(int(size), LENGTH, LENGTH, number)]  # fmt: skip
    compute = causal_lm.log_probabilities(work.model)
    alone = -sum(one.log_probabilities.sum() for one in predictions(compute, work.training, windows, work.pieces))
    losses = {}
    for across, (settings, made) in {False: (config, work), True: _work(stories, True)}.items():
        assert made.attends_across == across
        (batch,) = made.micro_batches(0)
        assert ("documents" in batch.inputs) != across
        assert batch.inputs.keys() == made.input_specs().keys()
        engine = TensorFlowEngine(settings, made, 10, "float32")
        engine.step(0, [batch])
        losses[across] = engine.read().loss
    assert losses[False] == pytest.approx(alone, rel=1e-5)
    assert abs(losses[True] - alone) > 1e-3 * alone


def test_auto_is_across_for_plain_text_and_within_for_conversations(stories):
    assert _work(stories, "auto")[1].attends_across
    stories.properties["chat"] = "chatml"
    try:
        assert not _work(stories, "auto")[1].attends_across
    finally:
        stories.properties["chat"] = None
    across, within = (TrainStage.model_validate({"task": "causal_lm", "model": MODEL, "attend_across_documents": one})
                      for one in (True, False))  # fmt: skip
    assert across.resume_identity() != within.resume_identity()


def test_a_border_belongs_to_the_document_that_it_begins():
    lengths = np.array([3, 0, 2])
    packing = Packing(lengths, 16, 0, None, (-1,))
    # The stream's token before the first one, a b c end, end, d e (and its end, which is read by none).
    assert packing.documents(-1, 7).tolist() == [0, 0, 0, 0, 1, 2, 2, 2]
    # With a begin of its own: begin a b c, end begin, end begin, d e.
    packing = Packing(lengths, 16, 0, None, (-1, -2))
    assert packing.documents(-1, 9).tolist() == [0, 0, 0, 0, 0, 1, 1, 2, 2, 2]


def test_other_tasks_refuse_it(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(
        "name: x\ntask: masked_lm\ningest: {train: x.txt}\nmodel: {preset: x}\ntrain: {attend_across_documents: false}\n"
    )
    with pytest.raises(
        UserError, match=r"attend_across_documents: false goes with task causal_lm, and this is masked_lm"
    ):
        load(path)
