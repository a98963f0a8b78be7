"""Folders as `transformers` writes them pass the checks of presets: shapes, counts and files of every kind that is read."""

import pytest

from lmworks.configs.errors import UserError
from lmworks.models.preset_checks import check_files
from lmworks.models.preset_kinds import HUGGING_FACE

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.peers

SIZES = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64}  # fmt: skip
GROUPED = SIZES | {"num_key_value_heads": 2}
WIDE = GROUPED | {"head_dim": 16}
SCALED = WIDE | {"query_pre_attn_scalar": 16}
GPT2 = {"vocab_size": 50, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
DISTILBERT = {"vocab_size": 50, "dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 64}
MODELS = {
    "Llama": ("LlamaConfig", "LlamaForCausalLM", GROUPED),
    "Mistral": ("MistralConfig", "MistralForCausalLM", GROUPED),
    "Qwen 2": ("Qwen2Config", "Qwen2ForCausalLM", GROUPED),
    "Qwen 3": ("Qwen3Config", "Qwen3ForCausalLM", WIDE),
    "Gemma": ("GemmaConfig", "GemmaForCausalLM", WIDE),
    "Gemma 2": ("Gemma2Config", "Gemma2ForCausalLM", SCALED),
    "Gemma 3": ("Gemma3TextConfig", "Gemma3ForCausalLM", SCALED),
    "SmolLM3": ("SmolLM3Config", "SmolLM3ForCausalLM", GROUPED | {"pad_token_id": 0}),
    "Phi-3": ("Phi3Config", "Phi3ForCausalLM", GROUPED | {"pad_token_id": 0}),
    "GPT-2": ("GPT2Config", "GPT2LMHeadModel", GPT2),
    "GPT-2 without head": ("GPT2Config", "GPT2Model", GPT2 | {"n_inner": 40}),
    "BERT": ("BertConfig", "BertModel", SIZES),
    "BERT for masks": ("BertConfig", "BertForMaskedLM", SIZES),
    "BERT for classes": ("BertConfig", "BertForSequenceClassification", SIZES),
    "DistilBERT": ("DistilBertConfig", "DistilBertModel", DISTILBERT),
    "DistilBERT for classes": ("DistilBertConfig", "DistilBertForSequenceClassification", DISTILBERT),
}


def written(name, folder):
    kind, model, sizes = MODELS[name]
    config = getattr(transformers, kind)(**sizes)
    getattr(transformers, model)(config).save_pretrained(folder, max_shard_size="20KB")
    return config


@pytest.mark.parametrize("name", MODELS)
def test_a_folder_of_transformers_passes(name, tmp_path):
    config = written(name, tmp_path)
    assert list(tmp_path.glob("*.index.json")), "several files"
    check_files(tmp_path)
    config.vocab_size += 1
    config.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"says that tensor .* is of the shape"):
        check_files(tmp_path)


def test_every_kind_is_tried():
    kinds = {getattr(transformers, kind).model_type for kind, _, _ in MODELS.values()}
    assert kinds == {kind for kinds in HUGGING_FACE.values() for kind in kinds}
