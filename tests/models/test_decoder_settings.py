import json
from pathlib import Path

import pytest

from lmworks.configs.errors import UserError
from lmworks.models.config_fields import HARMLESS
from lmworks.models.decoder_settings import completed, read_decoder_settings
from lmworks.models.transformer_settings import read_transformer_settings
from tests.models.checkpoint_configs import CHECKPOINTS

SIZES = {
    "vocab_size": 100, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "rms_norm_eps": 1e-5, "hidden_act": "silu",
}  # fmt: skip
GEMMA = {**SIZES, "head_dim": 8, "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh"}
GEMMA3 = {**GEMMA, "model_type": "gemma3_text", "query_pre_attn_scalar": 8}
PHI3 = {"model_type": "phi3", **SIZES}
LONGROPE = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
ROPE = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64}  # fmt: skip


def read(tmp_path, **described):
    (tmp_path / "config.json").write_text(json.dumps(described))
    return read_decoder_settings(str(tmp_path), 64)


def test_what_keras_hub_leaves_out_is_given(tmp_path):
    assert read(tmp_path, model_type="llama", **SIZES) == {"layer_norm_epsilon": 1e-5}
    for key in ("rope_parameters", "rope_scaling"):
        found = read(tmp_path, model_type="llama", **SIZES, **{key: ROPE})
        assert found["rope_frequency_adjustment_factor"] == 8.0
        assert found["rope_pretraining_sequence_length"] == 64
    for kind in ("rope_type", "type"):
        linear = read(tmp_path, model_type="qwen2", **SIZES, rope_scaling={kind: "linear", "factor": 2.0})
        assert linear["rope_scaling_factor"] == 2.0
    assert read(tmp_path, model_type="gemma", **GEMMA) == {"layer_norm_epsilon": 1e-5}
    assert read(tmp_path, model_type="gpt2") == {}
    assert read_decoder_settings("gpt2_base_en", 64) == {}


@pytest.mark.parametrize(
    ("described", "words"),
    [
        ({"model_type": "llama", **SIZES, "attention_bias": True}, "attention_bias True"),
        ({"model_type": "llama", **SIZES, "mlp_bias": True}, "mlp_bias True"),
        ({"model_type": "llama", **SIZES, "head_dim": 16}, "head_dim 16 with 4 heads"),
        ({"model_type": "llama", **SIZES, "rope_scaling": {"rope_type": "yarn", "factor": 4}}, "rope_type 'yarn'"),
        # KerasHub's Llama takes the factor and computes without it.
        ({"model_type": "llama", **SIZES, "rope_scaling": {"type": "linear", "factor": 4}}, "rope_type 'linear'"),
        ({"model_type": "llama", **SIZES, "rope_scaling": ROPE | {"attention_factor": 2.0}}, "attention_factor 2.0"),
        ({"model_type": "llama", **SIZES, "rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor 0.5"),
        ({"model_type": "llama", **SIZES, "partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5"),
        ({"model_type": "llama", **SIZES, "logit_scale": 0.1}, "logit_scale 0.1"),
        ({"model_type": "llama", **SIZES, "auto_map": {"AutoModel": "x.Y"}}, "auto_map {'AutoModel': 'x.Y'}"),
        ({"model_type": "llama", **SIZES, "hidden_size": None}, "lacks hidden_size"),
        ({"model_type": "qwen2", **SIZES, "use_sliding_window": True}, "use_sliding_window True"),
        ({"model_type": "qwen2", **SIZES, "use_mrope": True}, "use_mrope True"),
        ({"model_type": "qwen2", **SIZES, "layer_types": ["sliding_attention"] * 2}, "layer_types other than"),
        ({"model_type": "qwen3", **SIZES, "attention_bias": True}, "attention_bias True"),
        ({"model_type": "mistral", **SIZES, "hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"model_type": "mistral", **SIZES, "tie_word_embeddings": True}, "tie_word_embeddings True"),
        ({"model_type": "gemma", **GEMMA, "rope_theta": 1e6}, "rope_theta 1000000.0"),
        ({"model_type": "gemma", **GEMMA, "rope_parameters": {"rope_theta": 1e6}}, "rope_theta 1000000.0"),
        ({"model_type": "gemma2", **GEMMA, "hidden_activation": "gelu"}, "hidden_activation 'gelu'"),
        ({"model_type": "gemma2", **GEMMA, "query_pre_attn_scalar": 144}, "query_pre_attn_scalar 144"),
        # Gemma 2 27B: 4,608 / 32 heads, which KerasHub's layers do not get.
        ({"model_type": "gemma2", **GEMMA, "hidden_size": 4608, "num_attention_heads": 32, "head_dim": 128,
          "query_pre_attn_scalar": 144}, "query_pre_attn_scalar 144 with head_dim 128"),
        # transformers takes 256 where the config says nothing
        ({"model_type": "gemma2", **GEMMA}, "query_pre_attn_scalar 256"),
        ({"model_type": "gemma2", **GEMMA, "layer_types": ["full_attention"] * 2}, "one full layer in 2"),
        ({**GEMMA3, "sliding_window_pattern": 2}, "sliding_window_pattern 2"),
        ({**GEMMA3, "attn_logit_softcapping": 50.0}, "attn_logit_softcapping 50.0"),
        ({**GEMMA3, "rope_local_base_freq": 5e4}, "rope_local_base_freq 50000.0"),
        ({**GEMMA3, "rope_scaling": {"rope_type": "yarn", "factor": 8.0}}, "rope_scaling {'rope_type': 'yarn'"),
        ({**GEMMA3, "rope_parameters": {"full_attention": {"rope_theta": 5e5}}}, "rope_parameters.full_attention"),
        ({"model_type": "smollm3", **SIZES, "attention_bias": True}, "attention_bias True"),
        ({"model_type": "smollm3", **SIZES, "mlp_bias": True}, "mlp_bias True"),
        ({**PHI3, "is_encoder_decoder": True}, "is_encoder_decoder True"),
        ({**PHI3, "mup_width": 8.0}, r"mup_width 8\.0"),
        ({**PHI3, "rms_norm_eps": None}, "lacks rms_norm_eps"),
        ({**PHI3, "rope_scaling": LONGROPE, "original_max_position_embeddings": None}, "lacks original_max_position_embeddings"),
        ({**PHI3, "rope_scaling": {"type": "su"}}, "rope_type 'su' without short_factor, rope_type 'su' without long_factor"),
        ({**PHI3, "rope_scaling": {**LONGROPE, "short_factor": [1.0]}}, r"short_factor \[1\.0\] with heads of 8 numbers"),
        ({**PHI3, "rope_scaling": {**LONGROPE, "factor": 2.0}}, r"a longrope factor 2\.0 other than"),
        ({**PHI3, "rope_scaling": {**LONGROPE, "original_max_position_embeddings": 64}}, "64 of the rotary embedding, and 4096"),
        ({**PHI3, "rope_scaling": {**LONGROPE, "mscale": 2.0}}, r"mscale 2\.0 of the rotary embedding"),
        ({**PHI3, "sliding_window": 16}, "64 is above the model's 16 tokens of its sliding window"),
        ({"model_type": "llama", **SIZES, "rms_norm_eps": None}, "lacks rms_norm_eps"),
        ({"model_type": "llama", **SIZES, "rope_theta": None}, "rope_theta None of the rotary embedding"),
        ({"model_type": "llama", **SIZES, "rope_scaling": {"rope_type": "llama3"}}, "'llama3' without low_freq_factor"),
        ({"model_type": "llama", **SIZES, "rope_scaling": {**ROPE, "factor": "8"}}, "factor '8' of the rotary embedding"),
        ({"model_type": "llama", **SIZES, "max_position_embeddings": 32}, "64 is above the model's 32 positions"),
    ],
)  # fmt: skip
def test_what_keras_hub_cannot_do_is_refused(tmp_path, described, words):
    with pytest.raises(UserError, match=words):
        read(tmp_path, **described)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "is not JSON in UTF-8"),
        (b"\xff", "is not JSON in UTF-8"),
        (b"[1]", r"must be a JSON object, not a list"),
        (json.dumps({"model_type": ["llama"]}).encode(), r"model_type must be a text, not \['llama'\]"),
        (
            json.dumps({"model_type": "llama", **SIZES, "num_attention_heads": 0, "rope_scaling": "llama3"}).encode(),
            "num_attention_heads must be an integer above 0, not 0; rope_scaling must be a JSON object, not 'llama3'",
        ),
        (
            json.dumps({"model_type": "bert", "hidden_size": "768", "layer_norm_eps": "small"}).encode(),
            "hidden_size must be an integer above 0, not '768'; layer_norm_eps must be a number above 0, not 'small'",
        ),
    ],
)
def test_a_damaged_config_is_an_error_of_one_line(tmp_path, content, words):
    (tmp_path / "config.json").write_bytes(content)
    for read_settings in (
        lambda: read_decoder_settings(str(tmp_path), 64),
        lambda: read_transformer_settings(str(tmp_path), ("bert",)),
    ):
        with pytest.raises(UserError, match=rf"^model\.preset: {tmp_path / 'config.json'}: .*{words}"):
            read_settings()


def test_fields_that_change_nothing_and_other_names_are_read_in_a_phi3(tmp_path):
    plain = read(tmp_path, **PHI3)
    harmless = dict.fromkeys(HARMLESS - {"model_type"}, 1) | {
        "cross_attention_hidden_size": None,
        "hidden_act": "swish",
    }
    assert read(tmp_path, **{**harmless, **PHI3, "hidden_act": "swish"}) == plain
    assert (plain["rope_max_wavelength"], plain["rope_scaling_type"]) == (10_000.0, None)
    scaled = read(tmp_path, **PHI3, rope_parameters={**LONGROPE, "rope_theta": 5.0})
    assert (scaled["rope_max_wavelength"], scaled["rope_scaling_type"]) == (5.0, "su")
    assert scaled["rope_scaling_short_factor"] == LONGROPE["short_factor"]


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_configs_of_real_checkpoints_are_read(tmp_path, name):
    """As they stand beside the weights, with all that says nothing of the logits; an unknown field more is refused."""
    described = CHECKPOINTS[name]
    reads = [lambda: read_decoder_settings(str(tmp_path), 64)]
    if described["model_type"] in ("bert", "distilbert", "gpt2"):
        reads = [lambda: read_transformer_settings(str(tmp_path), (described["model_type"],))]
    (tmp_path / "config.json").write_text(json.dumps(described))
    assert reads[0]() is not None
    (tmp_path / "config.json").write_text(json.dumps(described | {"attention_multiplier": 0.5}))
    with pytest.raises(UserError, match=r"attention_multiplier 0\.5; a field that changes nothing can be removed"):
        reads[0]()


def test_kerashub_gets_what_transformers_takes_for_a_field_that_is_left_out(tmp_path):
    """Llama 2's config has no `rope_theta`, and that of a SmolLM3 may say its layers by an interval."""
    (tmp_path / "model.safetensors").write_bytes(b"x")
    (tmp_path / "config.json").write_text(json.dumps(CHECKPOINTS["Llama 2"]))
    with completed(str(tmp_path)) as folder:
        described = json.loads((Path(folder) / "config.json").read_text())
        assert (Path(folder) / "model.safetensors").read_bytes() == b"x"
    assert described["rope_theta"] == 10_000.0
    assert not Path(folder).exists()
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "smollm3", **SIZES, "num_hidden_layers": 5}))
    with completed(str(tmp_path)) as folder:
        described = json.loads((Path(folder) / "config.json").read_text())
    assert described["no_rope_layers"] == [1, 1, 1, 0, 1]
    assert described["layer_types"] == ["full_attention"] * 5
    (tmp_path / "config.json").write_text(json.dumps({"class_name": "x"}))
    with completed(str(tmp_path)) as folder:
        assert folder == str(tmp_path)
