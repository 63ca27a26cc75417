"""Shapes: parameter counts, KV and weights by hand, and what tensor parallelism does to them."""

from pathlib import Path

import pytest

from servsim.errors import ScenarioError
from servsim.model import ModelShape, load_model, weight_groups

FOLDER = Path(__file__).parents[2] / "models"
FILES = sorted(FOLDER.glob("*.yaml"))

# Totals of the safetensors files on Hugging Face.
COUNTED = {
    "llama-2-7b": 6_738_415_616,
    "llama-2-7b-32k": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496,
    "llama-3.1-405b": 405_853_388_800,
    "qwen2.5-7b": 7_615_616_512,
    "qwen3-14b": 14_768_307_200,
    "qwen3-32b": 32_762_123_264,
    "qwen3-30b-a3b": 30_532_122_624,
    "mistral-nemo": 12_247_782_400,
    "yi-34b": 34_388_917_248,
    "yi-34b-200k": 34_388_917_248,
    "llama-3-8b-4194k": 8_030_261_248,
    "mixtral-8x7b": 46_702_792_704,
}
# Rounded totals: DeepSeek-V3 without its multi-token prediction layer (arXiv 2412.19437), OPT 66B by its
# paper (arXiv 2205.01068) and OPT 13B by the size of its fp16 checkpoint.
ROUNDED = {"opt-13b": 12.85e9, "opt-66b": 66e9, "deepseek-v3": 671e9}
TINY = {
    "name": "tiny",
    "source": "made up",
    "num_hidden_layers": 2,
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 2,
    "vocab_size": 10,
    "max_position_embeddings": 32,
}


def shipped(name: str) -> ModelShape:
    return load_model(FOLDER / f"{name}.yaml")


def test_every_model_asked_for_is_shipped() -> None:
    assert {path.stem for path in FILES} >= COUNTED.keys() | ROUNDED.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_shipped_file_loads_under_its_own_name_with_its_source(path: Path) -> None:
    shape = load_model(path)
    assert shape.name == path.stem
    assert shape.source.startswith("https://huggingface.co/")


@pytest.mark.parametrize(("name", "counted"), COUNTED.items())
def test_the_number_of_parameters_is_that_of_the_published_files(name: str, counted: int) -> None:
    assert shipped(name).num_parameters == counted


@pytest.mark.parametrize(("name", "published"), ROUNDED.items())
def test_the_number_of_parameters_is_the_published_one_to_half_a_percent(name: str, published: float) -> None:
    assert shipped(name).num_parameters == pytest.approx(published, rel=0.005)


@pytest.mark.parametrize(
    ("name", "published"), [("mixtral-8x7b", 12.9e9), ("qwen3-30b-a3b", 3.3e9), ("deepseek-v3", 37e9)]
)
def test_the_number_of_active_parameters_is_the_published_one(name: str, published: float) -> None:
    assert shipped(name).num_active_parameters == pytest.approx(published, rel=0.02)


def test_a_tiny_network_counted_by_hand() -> None:
    shape = ModelShape.model_validate(TINY)
    attention = 2 * (8 * 8 + 2 * 8 * 4 + 8 * 8)
    mlp = 2 * 3 * 8 * 16
    norms = 2 * 2 * 8 + 8
    assert shape.num_parameters == 2 * 10 * 8 + attention + mlp + norms
    assert shape.num_active_parameters == shape.num_parameters
    tied = ModelShape.model_validate(TINY | {"tie_word_embeddings": True})
    assert tied.num_parameters == shape.num_parameters - 10 * 8


def test_experts_take_the_place_of_the_mlp_where_the_layer_routes() -> None:
    moe = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 6, "first_k_dense_replace": 1}
    shape = ModelShape.model_validate(TINY | {"moe": moe})
    dense = ModelShape.model_validate(TINY)
    assert (shape.num_moe_layers, shape.num_dense_layers) == (1, 1)
    assert shape.num_parameters == dense.num_parameters - 3 * 8 * 16 + 4 * 3 * 8 * 6 + 4 * 8
    assert shape.num_parameters - shape.num_active_parameters == 2 * 3 * 8 * 6


@pytest.mark.parametrize(
    ("name", "dtype", "tensor_parallel_size", "expected"),
    [
        ("llama-3.1-8b", "bf16", 1, 131_072),
        ("llama-3.1-8b", "fp8", 1, 65_536),
        ("llama-3.1-8b", "fp32", 1, 262_144),
        ("llama-3.1-70b", "bf16", 8, 40_960),
        ("llama-3.1-70b", "bf16", 16, 40_960),  # 8 heads on 16 devices: each is there twice
        ("llama-2-7b", "bf16", 1, 524_288),
        ("qwen3-30b-a3b", "bf16", 1, 98_304),  # 4 heads of 128, not of 2048 / 32
        ("deepseek-v3", "bf16", 1, 70_272),  # 61 layers of 512 + 64
        ("deepseek-v3", "bf16", 8, 70_272),  # the latent vector is on every device
    ],
)
def test_kv_bytes_a_token(name: str, dtype: str, tensor_parallel_size: int, expected: int) -> None:
    assert shipped(name).kv_bytes_per_token(dtype, tensor_parallel_size) == expected


def test_weight_bytes_without_quantization_are_parameters_times_width() -> None:
    llama = shipped("llama-3.1-8b")
    assert llama.weight_bytes("bf16") == 2 * llama.num_parameters
    assert llama.weight_bytes("fp32") == 4 * llama.num_parameters


def test_quantization_shrinks_the_linear_layers_alone() -> None:
    llama = shipped("llama-3.1-8b")
    tables = 2 * 128_256 * 4096
    norms = 65 * 4096
    linear = llama.num_parameters - tables - norms
    assert llama.weight_bytes("bf16", "fp8") == 2 * (tables + norms) + linear
    assert llama.weight_bytes("bf16", "int4") == 2 * (tables + norms) + linear * (0.5 + 2 / 128)


def test_each_of_eight_devices_holds_an_eighth_and_the_norms() -> None:
    llama = shipped("llama-3.1-70b")
    norms = 161 * 8192
    assert llama.weight_bytes("bf16", "none", 8) == 2 * ((llama.num_parameters - norms) // 8 + norms)


def test_copied_key_value_heads_are_weighed_on_every_device() -> None:
    qwen = shipped("qwen3-30b-a3b")
    split, copied = (
        sum(group.elements_per_rank for group in weight_groups(qwen, size) if group.name == "attention")
        for size in (4, 8)
    )
    assert copied > split / 2


def test_the_groups_add_up_to_the_network() -> None:
    for path in FILES:
        shape = load_model(path)
        groups = weight_groups(shape)
        assert sum(group.elements for group in groups) == shape.num_parameters
        assert all(group.elements_per_rank == group.elements for group in groups)


@pytest.mark.parametrize(("name", "size"), [("llama-3.1-70b", 8), ("llama-3.1-70b", 16), ("qwen3-30b-a3b", 8)])
def test_tensor_parallelism_that_divides_is_accepted(name: str, size: int) -> None:
    shipped(name).check_tensor_parallel(size)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        (
            "llama-3.1-8b",
            3,
            "32 attention heads, which 3 devices cannot share\n  tensor_parallel_size may be 1, 2, 4, 8",
        ),
        ("opt-13b", 16, "40 attention heads, which 16 devices"),
        ("qwen2.5-7b", 8, "28 attention heads, which 8 devices"),
        ("qwen2.5-7b", 7, "4 key/value heads, which 7 devices"),
    ],
)
def test_tensor_parallelism_that_does_not_divide_is_refused(name: str, size: int, message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        shipped(name).check_tensor_parallel(size)


def test_experts_too_narrow_for_the_devices_are_refused() -> None:
    moe = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 6}
    with pytest.raises(ScenarioError, match="experts of width 6, which 4 devices"):
        ModelShape.model_validate(TINY | {"moe": moe}).check_tensor_parallel(4)


def test_what_is_not_modelled_is_said() -> None:
    assert shipped("llama-3.1-8b").not_modelled == ()
    assert "multi-token" in shipped("deepseek-v3").not_modelled[0]
    windowed = ModelShape.model_validate(TINY | {"sliding_window": 4096})
    assert windowed.not_modelled == ("sliding window of 4096 tokens: attention reads the whole context",)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("hidden_size: 4096", "hidden_size: -1", "yaml:4: hidden_size: must be greater than 0, found -1"),
        ("hidden_size: 4096", "hidden_sizes: 4096", "yaml:4: hidden_sizes: unknown key\n  did you mean 'hidden_size'"),
        ("num_key_value_heads: 8", "num_key_value_heads: 5", "yaml:7: num_key_value_heads: 32 attention heads cannot"),
        ("head_dim: 128", "head_dim: 1.5", "yaml:8: head_dim: must be an integer"),
        ("vocab_size: 128256\n", "", "vocab_size: this key is missing"),
    ],
)
def test_a_mistake_in_a_model_file_is_one_error_with_its_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    lines = (FOLDER / "llama-3.1-8b.yaml").read_text().splitlines(keepends=True)
    text = "".join(line for line in lines if not line.startswith("#"))
    assert old in text
    path = tmp_path / "model.yaml"
    path.write_text(text.replace(old, new))
    with pytest.raises(ScenarioError, match=message):
        load_model(path)


@pytest.mark.parametrize(
    ("moe", "message"),
    [
        ({"num_experts": 4, "num_experts_per_tok": 5, "moe_intermediate_size": 6}, "a token cannot go to 5 of 4"),
        (
            {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 6, "first_k_dense_replace": 2},
            "no layer would have experts",
        ),
        (
            {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 6, "num_shared_experts": 1},
            "shared experts need both a number and a width",
        ),
    ],
)
def test_impossible_experts_are_refused(moe: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelShape.model_validate(TINY | {"moe": moe})
