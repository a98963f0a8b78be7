"""The parameters that are counted before a model is built are those of the model that is built."""

import pytest

from lmworks.configs.schema import Model
from lmworks.models import causal_lm, masked_lm, text_classification
from lmworks.models.bytepair import train_bytepair
from lmworks.models.parameters import parameters_from_scratch
from lmworks.models.tokenizer import open_tokenizer
from lmworks.models.wordpiece import train_wordpiece

TEXTS = [f"the quick brown fox {word} over {number} lazy dogs" for number in range(30) for word in ("ran", "sat")]
SIZES = {"layers": 3, "heads": 2, "hidden_dim": 16, "intermediate_dim": 40}


@pytest.mark.parametrize("length", [24, 600])
def test_a_language_model_from_scratch_has_the_parameters_counted(length):
    bert, gpt2 = (Model(architecture=kind, **SIZES) for kind in ("bert", "gpt2"))
    causal = causal_lm.build(gpt2, None, train_bytepair(TEXTS, 270), length)
    masked = masked_lm.build(bert, None, train_wordpiece(TEXTS, 70), length)
    assert causal.count_params() == parameters_from_scratch(gpt2, "causal_lm", 270, length)
    assert masked.count_params() == parameters_from_scratch(bert, "masked_lm", 70, length)


def test_a_classifier_from_scratch_has_the_parameters_counted_and_its_output_layer(tmp_path):
    train_wordpiece(TEXTS, 70).save(tmp_path)
    bert = Model(architecture="bert", **SIZES)
    classifier = text_classification.build(bert, None, open_tokenizer(tmp_path), 3)
    output_layer = 3 * 16 + 3
    assert classifier.count_params() == parameters_from_scratch(bert, "text_classification", 70, 24) + output_layer
