"""The same model is saved as the same bytes, whatever its process did before and whenever that is."""

import json
import time

import keras
import pytest

from lmworks.configs.errors import UserError
from lmworks.configs.schema import Model
from lmworks.models import causal_lm, masked_lm, text_classification
from lmworks.models.tokenizer import Tokenizer, open_causal_pieces
from lmworks.models.wordpiece import train_wordpiece
from tests.models.test_splitting import KINDS, checkpoint

SIZES = {"layers": 1, "heads": 2, "hidden_dim": 8, "intermediate_dim": 16}
BERT = Model(architecture="bert", **SIZES)


def classifier(folder, scratch):
    tokenizer = Tokenizer(train_wordpiece(["a few words to learn from"], 40))
    model = text_classification.build(BERT, None, tokenizer, 2, "mixed_bfloat16")
    text_classification.save(model, tokenizer, ["no", "yes"], 16, folder)
    return text_classification.load(folder)[0]


def masked(folder, scratch):
    pieces = train_wordpiece(["a few words to learn from"], 40)
    masked_lm.save(masked_lm.build(BERT, None, pieces, 16), pieces, 16, folder)
    return masked_lm.load(folder)


def causal(folder, scratch):
    checkpoint(scratch, **KINDS["gpt2"])
    pieces = open_causal_pieces(scratch)
    causal_lm.save(causal_lm.build(Model(architecture="gpt2", **SIZES), None, pieces, 16), pieces, 16, folder)
    return causal_lm.load(folder)


@pytest.mark.parametrize("save", [classifier, masked, causal])
def test_two_saves_give_the_same_bytes(save, tmp_path):
    content = []
    for name in ("first", "second"):
        keras.utils.set_random_seed(1)
        began = time.time()
        opened = save(tmp_path / name, tmp_path / f"{name}-tokenizer")
        assert opened.count_params()
        folder = tmp_path / name
        content.append({path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()})
        time.sleep(max(0.0, 1.1 - (time.time() - began)))  # KerasHub's date counts seconds
    assert content[0] == content[1]
    assert json.loads((tmp_path / "first" / "metadata.json").read_text()).keys() == {
        "keras_version", "keras_hub_version", "parameter_count", "tasks",
    }  # fmt: skip


def differs_from_build(opened, built):
    """Largest difference of a weight, between what was saved and what training begins from."""
    return max(
        float(abs(one - other).max()) for one, other in zip(opened.get_weights(), built.get_weights(), strict=True)
    )


def test_training_begins_from_the_head_that_a_folder_of_the_same_task_holds(tmp_path):
    pieces = train_wordpiece(["a few words to learn from"], 40)
    settings = Model(preset=str(tmp_path))
    opened = masked(tmp_path / "masked", tmp_path)
    assert differs_from_build(opened, masked_lm.build(settings, str(tmp_path / "masked"), pieces, 16)) == 0
    opened = classifier(tmp_path / "classes", tmp_path)
    build = text_classification.build
    assert differs_from_build(opened, build(settings, str(tmp_path / "classes"), Tokenizer(pieces), 2)) == 0
    assert build(settings, str(tmp_path / "classes"), Tokenizer(pieces), 3).num_classes == 3
    assert build(settings, str(tmp_path / "masked"), Tokenizer(pieces), 2).num_classes == 2
    assert masked_lm.build(settings, str(tmp_path / "classes"), pieces, 16).masked_lm_head is not None
    (tmp_path / "classes" / "task.json").write_text("{")
    with pytest.raises(UserError, match=r"model\.preset: .*task\.json: is not JSON"):
        build(settings, str(tmp_path / "classes"), Tokenizer(pieces), 2)
