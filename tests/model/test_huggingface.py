"""Hugging Face's config.json: every family gives the shape that is shipped for it, or says what is missing."""

import json
from pathlib import Path
from typing import Any

import pytest

from servsim.errors import ScenarioError
from servsim.model import ModelShape, load_model

FOLDER = Path(__file__).parents[2] / "models"

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
QWEN2 = {
    "model_type": "qwen2",
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "max_position_embeddings": 32768,
    "max_window_layers": 28,
    "sliding_window": 131072,
    "use_sliding_window": False,
    "tie_word_embeddings": False,
}
QWEN3_MOE = {
    "model_type": "qwen3_moe",
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "moe_intermediate_size": 768,
    "num_attention_heads": 32,
    "num_hidden_layers": 48,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "sliding_window": None,
    "tie_word_embeddings": False,
}
MIXTRAL = {
    "model_type": "mixtral",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "vocab_size": 32000,
    "max_position_embeddings": 32768,
    "sliding_window": None,
    "tie_word_embeddings": False,
}
DEEPSEEK_V3 = {
    "model_type": "deepseek_v3",
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "num_attention_heads": 128,
    "num_hidden_layers": 61,
    "num_key_value_heads": 128,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "first_k_dense_replace": 3,
    "moe_layer_freq": 1,
    "kv_lora_rank": 512,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "num_nextn_predict_layers": 1,
    "vocab_size": 129280,
    "max_position_embeddings": 163840,
    "tie_word_embeddings": False,
    "quantization_config": {"quant_method": "fp8"},
}
OPT = {
    "_name_or_path": "facebook/opt-13b",
    "model_type": "opt",
    "hidden_size": 5120,
    "ffn_dim": 20480,
    "num_attention_heads": 40,
    "num_hidden_layers": 40,
    "vocab_size": 50272,
    "max_position_embeddings": 2048,
    "word_embed_proj_dim": 5120,
    "do_layer_norm_before": True,
}


def read(folder: Path, config: dict[str, Any]) -> ModelShape:
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    return load_model(path)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("llama-3.1-8b", LLAMA),
        ("qwen2.5-7b", QWEN2),
        ("qwen3-30b-a3b", QWEN3_MOE),
        ("mixtral-8x7b", MIXTRAL),
        ("deepseek-v3", DEEPSEEK_V3),
        ("opt-13b", OPT),
    ],
)
def test_a_config_gives_the_shape_that_is_shipped(tmp_path: Path, name: str, config: dict[str, Any]) -> None:
    known = load_model(FOLDER / f"{name}.yaml")
    found = read(tmp_path, config)
    assert found.model_copy(update={"name": known.name, "source": known.source}) == known


def test_the_name_comes_from_the_config_or_else_from_its_folder(tmp_path: Path) -> None:
    assert read(tmp_path, OPT).name == "opt-13b"
    folder = tmp_path / "My-Llama"
    folder.mkdir()
    assert read(folder, LLAMA).name == "my-llama"


def test_a_folder_stands_for_the_config_in_it(tmp_path: Path) -> None:
    shape = read(tmp_path, LLAMA)
    assert load_model(tmp_path).num_parameters == shape.num_parameters


def test_a_missing_head_dim_is_the_share_of_a_head(tmp_path: Path) -> None:
    assert read(tmp_path, LLAMA).head_dim == 128
    assert read(tmp_path, LLAMA | {"head_dim": None}).head_dim == 128


def test_a_written_head_dim_wins(tmp_path: Path) -> None:
    assert read(tmp_path, QWEN3_MOE).head_dim == 128


def test_missing_key_value_heads_mean_one_for_every_head(tmp_path: Path) -> None:
    assert read(tmp_path, OPT).num_key_value_heads == 40


def test_a_window_that_is_switched_off_is_none_and_one_that_is_on_is_reported(tmp_path: Path) -> None:
    assert read(tmp_path, QWEN2).sliding_window is None
    shape = read(tmp_path, QWEN2 | {"use_sliding_window": True})
    assert shape.sliding_window == 131072
    assert "sliding window" in shape.not_modelled[0]


def test_a_multimodal_config_nests_the_language_model(tmp_path: Path) -> None:
    nested = {key: value for key, value in LLAMA.items() if key not in ("architectures", "tie_word_embeddings")}
    config = {
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "text_config": nested,
        "vision_config": {"hidden_size": 1024},
        "tie_word_embeddings": True,
    }
    shape = read(tmp_path, config)
    assert shape.num_hidden_layers == 32
    assert shape.tie_word_embeddings
    assert shape.not_modelled == ("image and audio encoders: neither loaded nor run",)


def test_biases_are_counted_where_the_family_has_them(tmp_path: Path) -> None:
    plain = read(tmp_path, LLAMA)
    biased = read(tmp_path, LLAMA | {"attention_bias": True})
    assert biased.num_parameters - plain.num_parameters == 32 * (4096 + 2 * 1024 + 4096)


def test_every_second_layer_may_have_experts(tmp_path: Path) -> None:
    shape = read(tmp_path, QWEN3_MOE | {"decoder_sparse_step": 2})
    assert shape.moe is not None
    assert [shape.moe.is_moe_layer(layer) for layer in range(4)] == [False, True, False, True]
    listed = read(tmp_path, DEEPSEEK_V3 | {"moe_layer_freq": [0] + [1] * 60, "first_k_dense_replace": 0})
    assert listed.num_dense_layers == 1


def test_llama_4_writes_its_widths_the_other_way_round(tmp_path: Path) -> None:
    text = {key: value for key, value in LLAMA.items() if key != "architectures"}
    text |= {"model_type": "llama4_text", "intermediate_size": 8192, "intermediate_size_mlp": 16384}
    text |= {"num_local_experts": 16, "num_experts_per_tok": 1, "interleave_moe_layer_step": 1}
    shape = read(tmp_path, {"model_type": "llama4", "text_config": text})
    assert shape.moe is not None
    assert (shape.intermediate_size, shape.moe.moe_intermediate_size) == (16384, 8192)
    assert shape.moe.shared_intermediate_size == 8192


def test_gpt2_is_read_by_its_own_names(tmp_path: Path) -> None:
    config = {
        "model_type": "gpt2",
        "n_embd": 768,
        "n_layer": 12,
        "n_head": 12,
        "n_positions": 1024,
        "vocab_size": 50257,
    }
    assert read(tmp_path, config).num_parameters == 124_439_808


def test_an_unknown_architecture_is_read_by_the_common_names_and_says_so(tmp_path: Path) -> None:
    shape = read(tmp_path, LLAMA | {"model_type": "novel"})
    assert shape.num_parameters == 8_030_261_248
    assert shape.not_modelled == ("architecture 'novel': read by the common names, as a Llama-like decoder",)


def test_layers_that_are_no_plain_attention_are_reported(tmp_path: Path) -> None:
    shape = read(tmp_path, LLAMA | {"layer_types": ["linear_attention", "full_attention"] * 16})
    assert "linear_attention" in shape.not_modelled[0]
    mixed = read(tmp_path, LLAMA | {"layer_types": ["sliding_attention", "full_attention"] * 16, "sliding_window": 128})
    assert len(mixed.not_modelled) == 2


@pytest.mark.parametrize("field", ["num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size"])
def test_a_missing_field_is_named(tmp_path: Path, field: str) -> None:
    config = {key: value for key, value in LLAMA.items() if key != field}
    with pytest.raises(ScenarioError, match=rf"config\.json: '{field}'.* is missing"):
        read(tmp_path, config)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"hidden_size": "4096"}, r"config\.json: hidden_size: must be an integer, found '4096'"),
        ({"hidden_size": True}, r"hidden_size: must be an integer, found True"),
        ({"num_hidden_layers": 0}, r"num_hidden_layers: must be at least 1, found 0"),
        ({"num_hidden_layers": float("nan")}, r"num_hidden_layers: must be an integer, found nan"),
        ({"num_attention_heads": 24}, r"head_dim: head_dim is missing, and 24 heads do not divide"),
        ({"num_key_value_heads": 5}, r"num_key_value_heads: 32 attention heads cannot share 5"),
        ({"is_encoder_decoder": True}, r"encoder-decoder networks are not modelled"),
        ({"num_local_experts": 8}, r"'num_experts_per_tok' .* is missing"),
    ],
)
def test_a_wrong_value_is_one_clear_error(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        read(tmp_path, LLAMA | changed)


def test_a_list_and_broken_json_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text("[1]")
    with pytest.raises(ScenarioError, match="found a list"):
        load_model(path)
    path.write_text('{"model_type": "llama",\n')
    with pytest.raises(ScenarioError, match=r"config\.json:2: not valid JSON"):
        load_model(path)
