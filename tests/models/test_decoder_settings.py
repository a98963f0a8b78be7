import json

import pytest

from lmworks.configs.errors import UserError
from lmworks.models.decoder_settings import read_decoder_settings

SIZES = {"hidden_size": 32, "num_attention_heads": 4, "rms_norm_eps": 1e-5, "hidden_act": "silu"}
GEMMA = {**SIZES, "head_dim": 8, "rms_norm_eps": 1e-6}


def read(tmp_path, **described):
    (tmp_path / "config.json").write_text(json.dumps(described))
    return read_decoder_settings(str(tmp_path), 64)


def test_what_keras_hub_leaves_out_is_given(tmp_path):
    assert read(tmp_path, model_type="llama", **SIZES) == {"layer_norm_epsilon": 1e-5}
    rope = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64}  # fmt: skip
    for key in ("rope_parameters", "rope_scaling"):
        found = read(tmp_path, model_type="llama", **SIZES, **{key: rope})
        assert found["rope_frequency_adjustment_factor"] == 8.0
        assert found["rope_pretraining_sequence_length"] == 64
    linear = read(tmp_path, model_type="llama", **SIZES, rope_parameters={"rope_type": "linear", "factor": 2.0})
    assert linear["rope_position_scaling_factor"] == 2.0
    assert read(tmp_path, model_type="gpt2") == {}
    assert read_decoder_settings("gpt2_base_en", 64) == {}


@pytest.mark.parametrize(
    ("described", "words"),
    [
        ({"model_type": "llama", **SIZES, "attention_bias": True}, "llama does not have attention_bias True"),
        ({"model_type": "llama", **SIZES, "head_dim": 16}, "head_dim 16 with 4 heads"),
        ({"model_type": "llama", **SIZES, "rope_scaling": {"rope_type": "yarn", "factor": 4}}, "rope_type 'yarn'"),
        ({"model_type": "qwen2", **SIZES, "use_sliding_window": True}, "use_sliding_window True"),
        ({"model_type": "mistral", **SIZES, "hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"model_type": "gemma", **GEMMA, "rms_norm_eps": 1e-5}, "rms_norm_eps 1e-05"),
        ({"model_type": "gemma2", **GEMMA, "query_pre_attn_scalar": 144}, "query_pre_attn_scalar 144"),
        ({"model_type": "gemma2", **GEMMA, "layer_types": ["full_attention"] * 2}, "one full layer in 2"),
        ({"model_type": "llama", **SIZES, "max_position_embeddings": 32}, "64 is above the model's 32 positions"),
        ({"model_type": "gemma3_text", **GEMMA, "rope_parameters": {"full_attention": {"rope_theta": 5e5}}},
         "rope_parameters.full_attention"),
    ],
)  # fmt: skip
def test_what_keras_hub_cannot_do_is_refused(tmp_path, described, words):
    with pytest.raises(UserError, match=words):
        read(tmp_path, **described)
