"""Training and evaluation of language models on a small corpus."""

import json
import math
import subprocess
import sys

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from scipy import stats

from lmworks.configs.errors import UserError
from lmworks.configs.schema import EvaluateStage, Model, TrainStage
from lmworks.models import causal_lm, masked_lm, tokenizer
from lmworks.models.arithmetic import flops_per_token
from lmworks.models.generation import Completer, Sampling, choose
from lmworks.models.preset import check_positions
from lmworks.models.tokenizer import open_pieces
from lmworks.pipeline.evaluate.language import _slices, memorised_share
from lmworks.pipeline.evaluate.language_metrics import Sums, figures, masked_rows
from lmworks.pipeline.export.continuation import Wish, continue_text
from lmworks.pipeline.export.servable_folder import find_servable
from lmworks.pipeline.masking import MaskedPrediction, MaskedRows
from lmworks.pipeline.packing import DocumentTable, Packing
from lmworks.pipeline.preprocess import documents
from lmworks.pipeline.preprocess.documents import pieces_of
from lmworks.pipeline.train.curves import Curves
from lmworks.pipeline.train.language import Causal, MaskedWork
from lmworks.pipeline.train.tensorflow_engine import TensorFlowEngine
from lmworks.pipeline.windows import _stream, windows_of
from tests.conftest import lmworks
from tests.pipeline.corpora import corpus, story
from tests.pipeline.loaded import load_once
from tests.tiny_decoders import read_of

SIZES = {"layers": 2, "heads": 2, "hidden_dim": 16, "intermediate_dim": 32, "dropout": 0.0}


@pytest.fixture(scope="module")
def causal(tmp_path_factory):
    return corpus(tmp_path_factory.mktemp("causal") / "c", "causal_lm", 32)[1]


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    return corpus(tmp_path_factory.mktemp("masked") / "m", "masked_lm", 32)[1]


def _work(sequences, **settings):
    task = "masked_lm" if sequences.properties["tokenizer"] == "wordpiece" else "causal_lm"
    architecture = "bert" if task == "masked_lm" else "gpt2"
    model = {"architecture": architecture, **SIZES}
    config = TrainStage.model_validate({"task": task, "model": model, "precision": "float32", "seed": 5, **settings})
    pieces = open_pieces(sequences.path / "tokenizer", sequences.properties["tokenizer"])
    keras.utils.set_random_seed(1)
    if task == "masked_lm":
        return config, MaskedWork(config, masked_lm.build(config.model, None, pieces, 32), pieces, sequences)
    return config, Causal(config, causal_lm.build(config.model, None, pieces, 32), pieces, sequences)


@pytest.mark.parametrize("kind", ["causal", pytest.param("masked", marks=pytest.mark.slow)])
def test_sixteen_at_once_trains_as_two_times_eight(kind, request):
    weights, targets = [], []
    for size, accumulate in ((16, 1), (2, 8)):
        config, work = _work(request.getfixturevalue(kind), batch_size=size, accumulate=accumulate, learning_rate=1e-2)
        engine = TensorFlowEngine(config, work, 10, "float32")
        last = work.steps_per_epoch - 1  # its batch is not full, so that micro-batches have unequal numbers of targets
        for step in (0, last, 1):
            batches = work.micro_batches(step)
            engine.step(step, batches)
        targets.append([batch.targets for batch in work.micro_batches(last)])
        weights.append(work.model.get_weights())
    assert len(set(targets[1])) > 1
    assert sum(targets[0]) == sum(targets[1])
    moved = max(np.abs(one).max() for one in weights[0])
    assert moved > 0.01
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


def test_the_loss_is_the_mean_over_the_steps_real_targets(causal):
    config, work = _work(causal, batch_size=4, accumulate=2)
    batches = work.micro_batches(work.steps_per_epoch - 1)
    logits = [causal_lm.logits_of(work.model, tf.constant(batch.inputs["token_ids"])).numpy() for batch in batches]
    total = count = 0.0
    for batch, found in zip(batches, logits, strict=True):
        for row, position in zip(*np.nonzero(batch.inputs["weights"]), strict=True):
            line = found[row, position].astype(np.float64)
            total -= line[batch.inputs["targets"][row, position]] - np.log(np.exp(line).sum())
            count += 1
    engine = TensorFlowEngine(config, work, 10, "float32")
    engine.step(0, batches)
    totals = engine.read()
    assert totals.targets == count
    assert totals.loss / totals.targets == pytest.approx(total / count, abs=1e-5)


def test_arithmetic_counted_by_hand(causal, masked):
    width, between, length = 16, 32, 32
    dense = width * width + width
    layer = 4 * dense + 2 * 2 * width + (width * between + between) + (between * width + width)
    everywhere = 2 * layer + 2 * width  # both have one norm more: before the layers or behind them
    attention = 2 * 12 * width * length
    _, work = _work(causal)
    vocabulary = work.pieces.vocabulary_size * width
    expected = 6 * (everywhere + vocabulary) + attention
    assert flops_per_token(work.model, length, work.predicted) == pytest.approx(expected)
    _, work = _work(masked)
    vocabulary = work.pieces.vocabulary_size * (width + 1)  # with a bias
    targets = round(0.15 * (length - 2))
    expected = 6 * (everywhere + (dense + 2 * width + vocabulary) * targets / length) + attention
    assert flops_per_token(work.model, length, work.predicted) == pytest.approx(expected)
    assert work.describe(2.0, 10.0, 1)["flops_per_second"] == pytest.approx(10 * expected)


def test_validation_is_the_evaluation(causal, masked):
    """Training's validation has the figures of the same predictions that a reader computes by hand, and of every one once."""
    _, work = _work(causal)
    table = work.validation
    nll = 0.0
    for document in range(len(table)):
        tokens = np.append(table.tokens(document), work.pieces.end_id)
        for begin in range(0, len(tokens), 32):
            shown = np.append(work.pieces.end_id, tokens)[begin : begin + 32][: len(tokens) - begin]
            logits = causal_lm.logits_of(work.model, tf.constant([shown])).numpy()[0].astype(np.float64)
            new = tokens[begin : begin + 32]
            nll -= (logits[np.arange(len(new)), new] - np.log(np.exp(logits).sum(axis=1))).sum()
    found = work.validate(0, Curves(None, {}))
    targets = int((table.lengths + 1).sum())
    assert found["loss"] == pytest.approx(nll / targets, rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(nll / targets), rel=1e-4)
    assert found["bits_per_byte"] == pytest.approx(nll / math.log(2) / table.bytes.sum(), rel=1e-5)
    found = _work(masked)[1].validate(0, Curves(None, {}))
    assert set(found) == {"loss", "perplexity", "accuracy"}, "a masked model has no bits per byte"


def test_language_metrics_need_no_tensorflow():
    code = "import sys, lmworks.pipeline.evaluate.language_metrics; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_masked_split_is_made_batch_by_batch_and_its_targets_know_their_documents(masked):
    pieces = open_pieces(masked.path / "tokenizer", "wordpiece")
    table = DocumentTable(masked, "train")
    masking = MaskedRows(pieces, 32, 0.3)
    split = masking.whole_split(table)
    stream = np.concatenate([np.append(table.tokens(document), pieces.sep_id) for document in range(len(table))])
    owner = np.repeat(np.arange(len(table)), table.lengths + 1)
    seen = 0
    for batch, again in zip(split, split, strict=True):
        np.testing.assert_array_equal(batch.inputs["token_ids"], again.inputs["token_ids"])
        places = batch.sequences * 30 + batch.inputs["positions"][batch.real] - 1
        np.testing.assert_array_equal(stream[places], batch.inputs["targets"][batch.real])
        np.testing.assert_array_equal(owner[places], batch.documents)
        seen += len(places)
    assert len(split) > 3
    assert 0.25 * len(stream) < seen < 0.35 * len(stream)
    assert len(masking.whole_split(table, 32 * 33)) == 2


def test_stretches_of_a_masked_split_add_up():
    sequences, documents = np.array([4, 4, 4, 5, 5]), np.array([0, 0, 1, 1, 1])
    chances = np.log(np.array([0.5, 0.25, 0.5, 0.5, 0.125], np.float32))
    prediction = MaskedPrediction(sequences, documents, chances, np.array([True, False, True, True, True]))
    rows = [tuple(map(float, row)) for row in masked_rows(prediction)]
    two = math.log(2)
    np.testing.assert_allclose(rows, [(3 * two, 2, 1, 0, 0), (two, 1, 1, 0, 1), (4 * two, 2, 2, 0, 1)], rtol=1e-6)
    assert Sums.of(rows).metrics()["loss"] == pytest.approx(8 * two / 5)


def test_intervals_are_over_documents_also_where_they_are_few_and_none_where_nothing_can_be_said():
    random = np.random.default_rng(3)
    level = np.repeat(random.normal(3, 1, 30), 50)  # stretches of a document resemble each other
    documents, ones = np.repeat(np.arange(30), 50), np.ones(1500)
    sums = Sums(level + random.normal(0, 0.1, 1500), ones, 0 * ones, 0 * ones, documents)
    for count in (30, 19, 10):
        some = sums.take(documents < count)
        low, high = figures(some)["loss"]["ci95"]
        means = some.by_document(count).nll / 50
        assert high - low == pytest.approx(2 * stats.t.ppf(0.975, count - 1) * stats.sem(means), rel=0.06)
        assert figures(some)["perplexity"]["ci95"] == pytest.approx((math.exp(low), math.exp(high)))
    assert "ci95" not in figures(sums)["accuracy"], "no hits at all say nothing of their spread"
    assert not [figure for figure in figures(sums.take(documents < 9)).values() if "ci95" in figure]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_one_clear_error(bad):
    ones = np.ones(20)
    nll = np.full(20, 3.0)
    nll[4:6] = bad
    with pytest.raises(UserError, match=r"loss: .*in 1 of 10 documents.* did training diverge\?"):
        figures(Sums(nll, ones, ones, ones, np.repeat(np.arange(10), 2)))
    with pytest.raises(UserError, match="no targets"):
        figures(Sums(nll[:3], 0 * ones[:3], ones[:3], ones[:3], np.arange(3)))


def test_a_slice_without_targets_is_shown_without_figures():
    ones = np.ones(4)
    sums = Sums(2 * ones, np.array([1.0, 1.0, 0.0, 0.0]), ones, ones, np.arange(4))
    config = EvaluateStage(task="causal_lm", slices=("kind",))
    slices = _slices(config, pa.table({"kind": ["a", "a", "b", None]}), sums)
    assert [(part["slice"]["kind"], part["examples"], bool(part["metrics"])) for part in slices] == [
        ("a", 2, True), (None, 1, False), ("b", 1, False),
    ]  # fmt: skip


def test_a_huge_loss_is_a_finite_perplexity():
    nll = np.linspace(800, 900, 12)
    result = figures(Sums(nll, np.ones(12), np.ones(12), np.ones(12), np.arange(12)))
    assert all(map(math.isfinite, (result["perplexity"]["value"], *result["perplexity"]["ci95"])))


def test_an_epoch_holds_every_token_once(causal):
    _, work = _work(causal, batch_size=4)
    seen = []
    for step in range(work.steps_per_epoch):
        for batch in work.micro_batches(step):
            real = batch.inputs["weights"] > 0
            assert batch.targets == real.sum()
            seen += batch.inputs["targets"][real].tolist()
            shifted = batch.inputs["token_ids"][:, 1:][real[:, 1:]]
            assert (shifted == batch.inputs["targets"][:, :-1][real[:, 1:]]).all()
    table = DocumentTable(causal, "train")
    expected = np.concatenate([np.append(table.tokens(index), work.pieces.end_id) for index in range(len(table))])
    assert sorted(seen) == sorted(expected.tolist())
    again = _work(causal, batch_size=4)[1]
    for step in (3, 0, work.steps_per_epoch + 1):
        for one, other in zip(work.micro_batches(step), again.micro_batches(step), strict=True):
            np.testing.assert_array_equal(one.inputs["token_ids"], other.inputs["token_ids"])


@pytest.mark.parametrize("kind", ["causal", "masked"])
def test_sequences_are_spread_evenly_over_the_steps(kind, request):
    """A step's loss is a mean over its targets: in a short last step each of them weighed up to 16 times as much."""
    _, work = _work(request.getfixturevalue(kind), batch_size=16)
    for epoch in range(2):
        steps = range(epoch * work.steps_per_epoch, (epoch + 1) * work.steps_per_epoch)
        batches = [batch for step in steps for batch in work.micro_batches(step)]
        sizes = [batch.examples for batch in batches]
        packing = work._pack(epoch)
        assert sum(sizes) == packing.sequences
        assert packing.sequences % 16, "else nothing is left to spread"
        assert max(sizes) - min(sizes) == 1
        assert sorted(np.concatenate([work.rows(step)[0] for step in steps])) == sorted(
            [*range(packing.sequences), *[-1] * (16 * len(batches) - packing.sequences)]
        )
        extra = 2 if kind == "masked" else 0  # [CLS] and [SEP]
        assert sum(batch.tokens for batch in batches) == packing.tokens + extra * packing.sequences


def test_a_part_of_the_validation_split_is_drawn_from_all_of_it(causal, masked):
    """Its beginning alone says nothing of the others, where a source follows another."""
    whole, again, part = (
        _work(causal, validation_tokens=tokens)[1]._validation_windows() for tokens in (10**9, 300, 300)
    )
    assert again == part, "the same in every evaluation"
    count = len(DocumentTable(causal, "validation"))
    assert {window.document for window in whole} == set(range(count))
    assert set(part) < set(whole)
    assert 300 <= sum(window.end - window.fresh for window in part) < 300 + 32
    assert max(window.document for window in part) > count * 0.6, "not the first ones"
    assert len(_work(causal, validation_tokens=1)[1]._validation_windows()) >= 1
    pieces = open_pieces(masked.path / "tokenizer", "wordpiece")
    table, masking = DocumentTable(masked, "train"), MaskedRows(pieces, 32, 0.3)
    everything, sample = masking.whole_split(table), masking.whole_split(table, 32 * 10)
    chosen = np.unique(np.concatenate([batch.sequences for batch in sample]))
    last = max(batch.sequences.max() for batch in everything)
    assert len(chosen) == 10
    assert chosen.max() > 0.6 * last
    targets = {row: batch.inputs["targets"][row % 32].tolist() for batch in everything for row in batch.sequences}
    (batch,) = sample
    for place, row in enumerate(chosen):
        assert batch.inputs["targets"][place].tolist() == targets[row], "with the masks that it has in the whole"


def test_masks_are_drawn_as_bert_does(masked):
    _, work = _work(masked, batch_size=8)
    pieces, kinds, shares = work.pieces, [], []
    for step in range(3 * work.steps_per_epoch):
        for batch in work.micro_batches(step):
            inputs = batch.inputs
            for row in np.flatnonzero(inputs["weights"].sum(axis=1)):
                count = int(inputs["weights"][row].sum())
                places, targets = inputs["positions"][row, :count], inputs["targets"][row, :count]
                assert len(set(places.tolist())) == count
                assert np.isin(targets, pieces.ordinary_ids).all(), "special tokens are never targets"
                shown = inputs["token_ids"][row, places]
                kinds += np.where(shown == pieces.mask_id, 0, np.where(shown == targets, 2, 1)).tolist()
                whole = inputs["token_ids"][row].copy()
                whole[places] = targets
                ordinary = int(np.isin(whole, pieces.ordinary_ids).sum())
                shares.append(abs(count - max(1, round(0.15 * ordinary))))
    assert max(shares) == 0
    share = np.bincount(kinds, minlength=3) / len(kinds)
    np.testing.assert_allclose(share, [0.8, 0.1, 0.1], atol=0.04)


def test_masks_are_new_in_every_epoch_and_the_same_in_every_run(masked):
    work, again = (_work(masked, batch_size=8)[1] for _ in range(2))
    for step in (0, work.steps_per_epoch):
        np.testing.assert_array_equal(
            work.micro_batches(step)[0].inputs["token_ids"], again.micro_batches(step)[0].inputs["token_ids"]
        )
    table, packing = work.training, Packing(work.training.lengths, 30, 5, None, (work.pieces.sep_id,))
    rows = np.arange(4)
    one, other = (work._masking.batch(table, packing, rows, [5, epoch])["positions"] for epoch in (0, 1))
    assert (one != other).any()


def test_whole_words_are_masked_together(masked):
    pieces = open_pieces(masked.path / "tokenizer", "wordpiece")
    starts = np.array([not token.startswith("##") for token in pieces.vocabulary])
    table = DocumentTable(masked, "train")
    packing = Packing(table.lengths, 30, 0, None, (pieces.sep_id,))
    inputs = MaskedRows(pieces, 32, 0.3, True).batch(table, packing, np.arange(packing.sequences), [0, 0])
    checked = 0
    for row in range(packing.sequences):
        count = int(inputs["weights"][row].sum())
        places = inputs["positions"][row, :count]
        whole = inputs["token_ids"][row].copy()
        whole[places] = inputs["targets"][row, :count]
        for place in places:
            following = place + 1
            while following < 32 and inputs["padding_mask"][row, following] and not starts[whole[following]]:
                assert following in places
                following += 1
                checked += 1
    assert checked > 20


@pytest.mark.parametrize(
    ("tokens", "length", "stride"), [(0, 8, 4), (7, 8, 8), (8, 8, 8), (50, 8, 3), (50, 16, 16), (5, 64, 1)]
)
def test_windows_predict_every_target_once_with_enough_before_it(tokens, length, stride):
    windows = list(windows_of(tokens, length, stride, 0))
    fresh = [target for window in windows for target in range(window.fresh, window.end)]
    assert fresh == list(range(tokens + 1))
    for window in windows:
        assert window.end - window.begin <= length
        assert window.begin <= window.fresh
        if window.begin:
            assert window.fresh - window.begin >= length - stride


def test_figures_are_exact_over_the_whole_split():
    random = np.random.default_rng(0)
    targets = random.integers(1, 50, 40).astype(float)
    sums = Sums(random.gamma(2, 1, 40) * targets, targets, np.floor(targets / 3), targets * 4.0, np.arange(40))
    found = figures(sums)
    loss = sums.nll.sum() / targets.sum()
    assert found["loss"]["value"] == pytest.approx(loss)
    assert found["perplexity"]["value"] == pytest.approx(math.exp(loss))
    assert found["bits_per_byte"]["value"] == pytest.approx(sums.nll.sum() / math.log(2) / (4 * targets.sum()))
    for figure in found.values():
        assert figure["ci95"][0] < figure["value"] < figure["ci95"][1]


def test_memorised_stretches_are_found():
    class Table:
        def __init__(self, documents):
            self.documents = [np.array(one, np.int32) for one in documents]

        def __len__(self):
            return len(self.documents)

        def tokens(self, index):
            return self.documents[index]

    random = np.random.default_rng(0)
    training = Table([random.integers(0, 9, size) for size in (3, 400, 77)])
    copied, new = training.documents[1][100:160], random.integers(9, 20, 60)
    assert memorised_share([copied], training, 50) == 1.0
    assert memorised_share([new], training, 50) == 0.0
    assert memorised_share([copied, new], training, 50) == 0.5
    assert memorised_share([copied[:49]], training, 50) == 0.0
    naive = {tuple(one[i : i + 7]) for one in training.documents for i in range(len(one) - 6)}
    text = np.concatenate([copied, new, training.documents[2][5:20]])
    expected = np.mean([tuple(text[i : i + 7]) in naive for i in range(len(text) - 6)])
    assert memorised_share([text], training, 7) == pytest.approx(expected)


def test_choosing_tokens():
    logits = tf.math.log(tf.constant([[0.5, 0.3, 0.15, 0.05]]))

    def drawn(**settings):
        draws = [int(choose(logits, Sampling(seed=seed, **settings), tf.constant(3))[0]) for seed in range(300)]
        return np.bincount(draws, minlength=4) / 300

    assert drawn().tolist() == [1, 0, 0, 0]
    np.testing.assert_allclose(drawn(temperature=1.0), [0.5, 0.3, 0.15, 0.05], atol=0.09)
    np.testing.assert_allclose(drawn(temperature=1.0, top_k=2), [0.625, 0.375, 0, 0], atol=0.09)
    np.testing.assert_allclose(drawn(temperature=1.0, top_p=0.7), [0.625, 0.375, 0, 0], atol=0.09)
    assert drawn(temperature=1.0, top_p=0.01).tolist() == [1, 0, 0, 0]


def test_generating_with_a_cache_is_the_model_itself(causal):
    _, work = _work(causal)
    for variable in work.model.trainable_variables:
        variable.assign(variable + 0.3 * keras.random.normal(variable.shape, seed=len(variable.path)))
    prompts = ["The end", "fox dog house river stone runs sleeps over", "", "fox dog house river stone " * 3]
    found = Completer(work.model, work.pieces, 32, 9, Sampling()).token_ids(prompts)
    for prompt, new in zip(prompts, found, strict=True):
        ids = read_of([work.pieces.end_id, *work.pieces.encode([prompt])[0].tolist()], 32, 9)
        expected = []
        while len(expected) < min(9, 32 - len(ids)):
            following = int(np.argmax(causal_lm.logits_of(work.model, tf.constant([ids + expected])).numpy()[0, -1]))
            if following == work.pieces.end_id:
                break
            expected.append(following)
        assert new.tolist() == expected


def test_cutting_long_texts_does_not_change_tokens(causal):
    text = "".join(story(number) for number in range(150)) * 12
    assert len(text) > 2 * 65_536
    parts = list(pieces_of(text))
    assert "".join(parts) == text
    assert len(parts) > 1
    pieces = open_pieces(causal.path / "tokenizer", "bpe")
    assert np.concatenate(pieces.encode(parts)).tolist() == pieces.encode([text])[0].tolist()
    endless = "x" * 600_000
    assert [len(part) for part in pieces_of(endless)] == [262_144, 262_144, 75_712]


def test_documents_are_tokenised_some_characters_at_once(tmp_path, monkeypatch):
    texts = [story(number) * (1 + number % 3) for number in range(60)]
    whole = corpus(tmp_path / "whole", "causal_lm", 32, texts)[1]
    monkeypatch.setattr(tokenizer, "_AT_ONCE", 1000)
    monkeypatch.setattr(documents, "_PIECE", 100)
    groups = list(tokenizer.groups_of(piece for text in texts for piece in pieces_of(text)))
    assert "".join(piece for group in groups for piece in group) == "".join(texts)
    sizes = [sum(map(len, group)) for group in groups]
    assert len(sizes) > 10
    assert max(sizes) < 1000 + 200
    cut = corpus(tmp_path / "cut", "causal_lm", 32, texts)[1]
    one, other = (DocumentTable(sequences, "train") for sequences in (whole, cut))
    assert len(one) == len(other) > 30
    for row in range(len(one)):
        np.testing.assert_array_equal(one.tokens(row), other.tokens(row))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tokenizer": {"train": {"kind": "bpe", "vocabulary_size": 90_000}}}, "vocabulary_size 90,000 is too large"),
    ],
)
def test_a_vocabulary_that_the_corpus_does_not_hold(tmp_path, settings, words):
    with pytest.raises(UserError, match=words):
        corpus(tmp_path / "c", "causal_lm", 32, **settings)


def test_more_tokens_than_positions(causal):
    pieces = open_pieces(causal.path / "tokenizer", "bpe")
    model = causal_lm.build(Model(architecture="gpt2", **SIZES), None, pieces, 32)
    with pytest.raises(UserError, match="sequence_length: 64 is above the model's 32 positions"):
        check_positions(model.backbone, 64)


@pytest.fixture(scope="module")
def runs(language_runs):
    return language_runs


def test_both_kinds_run_from_text_to_a_proved_servable(runs):
    for name, metric in (("stories", "bits_per_byte"), ("gaps", "accuracy")):
        told = json.loads((runs / name / "evaluate/evaluation/metrics.json").read_text())
        assert (
            told["metrics"][metric]["ci95"][0] <= told["metrics"][metric]["value"] <= told["metrics"][metric]["ci95"][1]
        )
        assert {one["slice"]["kind"] for one in told["slices"]} == {"a", "b"}
        record = json.loads((runs / name / "run.json").read_text())
        assert "gives the evaluated predictions" in record["stages"]["export"]["summary"]
        properties = json.loads((runs / name / "evaluate/evaluation/artifact.json").read_text())["properties"]
        assert properties.get("mask_ratio") == (0.25 if name == "gaps" else None)
        page = (runs / name / "evaluate/evaluation/report.html").read_text()
        assert "Hardest documents" in page
        own = pq.read_table(runs / name / "evaluate/evaluation/predictions.parquet")["source_id"]
        assert own.type == pa.int64()
        assert set(own.to_pylist()) < set(range(7000, 7200))
        assert any(f">{number}<" in page for number in own.to_pylist())
    table = pq.read_table(runs / "stories/evaluate/evaluation/predictions.parquet")
    told = json.loads((runs / "stories/evaluate/evaluation/metrics.json").read_text())["metrics"]
    assert told["loss"]["value"] == pytest.approx(
        -sum(table["log_probability"].to_pylist()) / sum(table["targets"].to_pylist())
    )
    assert told["perplexity"]["value"] == pytest.approx(math.exp(told["loss"]["value"]))
    assert told["perplexity"]["value"] < 60, "it has learnt something"


def test_the_model_opens_with_kerashub_alone(runs):
    import keras_hub

    model = keras_hub.models.CausalLM.from_preset(str(runs / "stories/train/model"))
    assert isinstance(model.generate("The end of", max_length=20), str)
    masked = keras_hub.models.MaskedLM.from_preset(str(runs / "gaps/train/model"))
    assert masked.count_params() > 1000


def test_predict_continues(runs):
    servable = runs / "stories/export/servable"
    done = lmworks("predict", f"--servable={servable}", "--text=The end of", "--tokens=12")
    told = json.loads(done.stdout)
    assert told["text"] == "The end of"
    assert told["continuation"]


@pytest.fixture(scope="module")
def served(runs):
    return load_once(find_servable(str(runs / "stories/export/servable")).path).signatures


def test_streaming_gives_what_generate_gives(served):
    for sampling in ({}, {"temperature": 0.9, "seed": 4}, {"temperature": 1.3, "top_k": 20, "top_p": 0.9, "seed": 1}):
        wish = Wish(tokens=15, **sampling)
        streamed = "".join(continue_text(served, "The end of story", wish))
        names = ("temperature", "top_k", "top_p", "seed")
        given = {
            name: tf.constant(getattr(wish, name), tf.float32 if name[0] == "t" and name != "top_k" else tf.int32)
            for name in names
        }
        text = served["generate"](text=tf.constant(["The end of story"]), tokens=tf.constant(15), **given)["text"]
        assert streamed == text.numpy()[0].decode()
    whole = served["serving_default"](text=tf.constant(["The end of", ""]))["text"].numpy()
    assert len(whole) == 2


def test_a_stop_string_ends_the_text_even_inside_a_token(served):
    whole = "".join(continue_text(served, "fox", Wish(tokens=25)))
    stop = whole[7:10]
    assert "".join(continue_text(served, "fox", Wish(tokens=25, stop=(stop, "never")))) == whole[: whole.index(stop)]


def test_log_probabilities_of_raw_text(served):
    found = served["score"](text=tf.constant(["The end of story", "fox"]))
    counts = found["targets"].numpy().tolist()
    values = found["log_probabilities"].numpy()
    assert values[1, counts[1] :].tolist() == [0.0] * (values.shape[1] - counts[1])
    alone = served["score"](text=tf.constant(["fox"]))["log_probabilities"].numpy()[0]
    np.testing.assert_allclose(values[1, : counts[1]], alone, atol=1e-5)
    assert (values[0, : counts[0]] < 0).all()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tokens": 0}, "--tokens"),
        ({"temperature": -1.0}, "--temperature"),
        ({"top_p": 0.0}, "--top_p"),
        ({"top_k": -1}, "--top_k"),
        ({"stop": ("",)}, "--stop"),
    ],
)
def test_wishes_that_mean_nothing(settings, words):
    with pytest.raises(UserError, match=words):
        Wish(**settings)


def test_a_stride_that_would_skip_tokens_is_refused(runs, tmp_path):
    config = (runs.parent / "causal.yaml").read_text()
    (tmp_path / "c.yaml").write_text(config)
    done = lmworks("run", f"--config={tmp_path}/c.yaml", f"--root={runs}", "--run=skip", "--set=evaluate.stride=33")
    assert done.returncode == 2
    assert "evaluate.stride: 33 is above preprocess.sequence_length 32" in done.stderr
    assert EvaluateStage(task="causal_lm").stride is None


def test_windows_read_what_they_should(causal):
    table, end = DocumentTable(causal, "train"), 0
    for document in range(5):
        whole = np.concatenate([[end], table.tokens(document), [end]])
        for window in windows_of(int(table.lengths[document]), 7, 3, document):
            found = _stream(table, window, end, end)
            assert found.tolist() == whole[window.begin : window.end + 1].tolist()
