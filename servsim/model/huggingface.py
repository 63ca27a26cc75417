"""Hugging Face's config.json, turned into a shape: the common names, and each family's own habits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from servsim.documents import Document, validate
from servsim.errors import ScenarioError
from servsim.model.configuration import Configuration
from servsim.model.shape import ModelShape

__all__ = ["is_config", "read_config"]

_NESTED = ("text_config", "llm_config", "language_config")
_PLAIN_MLP = {"bloom", "falcon", "gpt2", "gpt_bigcode", "gpt_neox", "gptj", "mpt", "opt", "phi", "starcoder2"}
_LAYER_NORM = _PLAIN_MLP | {"cohere"}
_ALL_BIASES = {"bloom", "gpt2", "gpt_bigcode", "gpt_neox", "opt", "phi", "starcoder2"}
_QKV_BIAS = {"qwen2", "qwen2_moe", "qwen2_5_vl_text", "qwen2_vl_text"}
_QK_NORM = {"gemma3", "gemma3_text", "qwen3", "qwen3_moe"}
_TIED = {"bloom", "cohere", "falcon", "gemma", "gemma2", "gemma3", "gemma3_text", "gpt2", "gpt_bigcode", "mpt", "opt"}
_KNOWN = (
    _LAYER_NORM
    | _QKV_BIAS
    | _QK_NORM
    | _TIED
    | {"deepseek_v2", "deepseek_v3", "glm4", "glm4_moe", "gpt_oss", "kimi_k2", "llama", "llama4_text"}
    | {"mistral", "mixtral", "olmo2", "phi3"}
)


def is_config(data: Mapping[str, Any]) -> bool:
    """Whether a mapping looks like a config.json rather than servsim's own model file."""
    return any(key in data for key in ("model_type", "architectures", *_NESTED))


def read_config(document: Document) -> ModelShape:
    """The shape that a config.json describes.

    An architecture that servsim does not know is read by the common names, as a Llama-like decoder,
    and ``not_modelled`` says so. Raises ScenarioError that names the field where one is missing or is
    not a number.
    """
    config = _text_part(document)
    family = str(config.get("model_type") or "llama")
    if config.get("is_encoder_decoder"):
        raise ScenarioError(
            "encoder-decoder networks are not modelled",
            place=config.place("is_encoder_decoder"),
            remedy="give a decoder-only network",
        )
    data = {
        "name": _name(document, config),
        "source": f"{document.name} (Hugging Face config.json)",
        **_dimensions(config, family),
        **_parameter_details(config, family),
        "sliding_window": _sliding_window(config),
        "moe": _moe(config, family),
        "mla": _mla(config),
        "checkpoint_quantization": _quantization(config),
        "other_features": _other_features(config, family),
    }
    # The values stand elsewhere than ModelShape's keys, so an error is placed at the file alone.
    return validate(ModelShape, data, document=Document(document.path, data))


def _text_part(document: Document) -> Configuration:
    for key in _NESTED:
        nested = document.data.get(key)
        if isinstance(nested, dict):
            return Configuration(document, nested, (key,))
    return Configuration(document, document.data)


def _name(document: Document, config: Configuration) -> str:
    written = config.get("_name_or_path")
    if isinstance(written, str) and written.strip("./ "):
        return written.rstrip("/").rsplit("/", 1)[-1].lower()
    if document.path is None:
        return str(config.get("model_type"))
    stem = document.path.stem
    return (document.path.resolve().parent.name if stem == "config" else stem).lower()


def _dimensions(config: Configuration, family: str) -> dict[str, Any]:
    hidden = config.whole("hidden_size", "n_embd", "d_model")
    heads = config.whole("num_attention_heads", "n_head", "attention_heads", "n_heads")
    intermediate = config.optional("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size", "d_ff")
    if family == "llama4_text":  # its experts have intermediate_size, its dense layers a width of their own
        intermediate = config.optional("intermediate_size_mlp") or intermediate
    if intermediate is None:
        if family not in ("bloom", "falcon", "gpt2", "gpt_bigcode", "gptj"):
            config.missing("intermediate_size")
        intermediate = 4 * hidden
    return {
        "num_hidden_layers": config.whole("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_attention_heads": heads,
        "num_key_value_heads": _key_value_heads(config, heads),
        "head_dim": _head_dim(config, hidden, heads),
        "vocab_size": config.whole("vocab_size"),
        "max_position_embeddings": config.whole(
            "max_position_embeddings", "n_positions", "max_sequence_length", "seq_length", "max_seq_len"
        ),
    }


def _key_value_heads(config: Configuration, heads: int) -> int:
    if config.get("kv_lora_rank"):
        return heads
    found = config.optional("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num")
    if found is not None:
        return found
    return 1 if config.get("multi_query") else heads


def _head_dim(config: Configuration, hidden: int, heads: int) -> int:
    if config.get("kv_lora_rank"):
        return config.whole("qk_nope_head_dim") + config.whole("qk_rope_head_dim", least=0)
    found = config.optional("head_dim", "kv_channels", "attention_head_dim")
    if found is not None:
        return found
    if hidden % heads:
        raise ScenarioError(
            f"head_dim is missing, and {heads} heads do not divide a hidden size of {hidden}",
            place=config.place("head_dim"),
        )
    return hidden // heads


def _parameter_details(config: Configuration, family: str) -> dict[str, Any]:
    biased = bool(config.get("enable_bias", True)) and family in _ALL_BIASES
    attention_bias = bool(config.get("attention_bias", False))
    tied = config.get("tie_word_embeddings")
    positions = 0
    if family in ("opt", "gpt2", "gpt_bigcode"):
        positions = config.whole("max_position_embeddings", "n_positions") + (2 if family == "opt" else 0)
    return {
        "tie_word_embeddings": family in _TIED if tied is None else bool(tied),
        "gated_mlp": family not in _PLAIN_MLP,
        "qkv_bias": biased or attention_bias or family in _QKV_BIAS,
        "output_bias": biased or (attention_bias and family not in ("glm4", "glm4_moe")),
        "mlp_bias": biased or bool(config.get("mlp_bias", False)),
        "qk_norm": family in _QK_NORM or bool(config.get("use_qk_norm", False)),
        "norm_bias": family in _LAYER_NORM and family != "cohere",
        "learned_positions": positions,
    }


def _sliding_window(config: Configuration) -> int | None:
    if config.get("use_sliding_window") is False:  # Qwen writes the window and switches it off
        return None
    return config.optional("sliding_window")


def _moe(config: Configuration, family: str) -> dict[str, Any] | None:
    experts = config.optional("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts", least=0)
    if not experts or experts == 1:
        return None
    width = config.optional("moe_intermediate_size") or config.whole("intermediate_size")
    shared_width = config.optional("shared_expert_intermediate_size", least=0) or 0
    shared = config.optional("n_shared_experts", "num_shared_experts", least=0) or (1 if shared_width else 0)
    if family == "llama4_text":
        shared = 1
    return {
        "num_experts": experts,
        "num_experts_per_tok": config.whole("num_experts_per_tok", "num_experts_per_token", "moe_topk"),
        "moe_intermediate_size": width,
        "num_shared_experts": shared,
        "shared_intermediate_size": shared_width or shared * width,
        "first_k_dense_replace": config.optional("first_k_dense_replace", least=0) or 0,
        **_moe_layers(config),
    }


def _moe_layers(config: Configuration) -> dict[str, Any]:
    frequency = config.get("moe_layer_freq")
    if isinstance(frequency, list):  # one 0 or 1 a layer
        return {"dense_layers": [layer for layer, has_experts in enumerate(frequency) if not has_experts]}
    dense = config.get("mlp_only_layers") or []
    # Qwen and Llama 4 count from one: with a step of 2 the layers 1, 3, 5 ... have experts.
    step = config.optional("decoder_sparse_step", "interleave_moe_layer_step")
    if step is not None:
        return {"dense_layers": dense, "layer_frequency": step, "layer_offset": step - 1}
    return {"dense_layers": dense, "layer_frequency": config.optional("moe_layer_freq") or 1}


def _mla(config: Configuration) -> dict[str, Any] | None:
    if not config.get("kv_lora_rank"):
        return None
    return {
        "kv_lora_rank": config.whole("kv_lora_rank"),
        "q_lora_rank": config.optional("q_lora_rank"),
        "qk_nope_head_dim": config.whole("qk_nope_head_dim"),
        "qk_rope_head_dim": config.whole("qk_rope_head_dim", least=0),
        "v_head_dim": config.whole("v_head_dim"),
    }


def _quantization(config: Configuration) -> str | None:
    found = config.get("quantization_config")
    if not isinstance(found, dict):
        return None
    method = found.get("quant_method")
    return method if isinstance(method, str) and method else "unnamed"


def _other_features(config: Configuration, family: str) -> list[str]:
    features = []
    if family not in _KNOWN:
        features.append(f"architecture '{family}': read by the common names, as a Llama-like decoder")
    layer_types = config.get("layer_types")
    kinds = sorted({str(kind) for kind in layer_types}) if isinstance(layer_types, list) else []
    if other := [kind for kind in kinds if kind not in ("full_attention", "sliding_attention")]:
        features.append(f"layers of type {', '.join(other)}: costed, and given KV, as full attention")
    elif len(kinds) > 1:
        features.append("sliding and full attention mixed: every layer reads the whole context")
    if config.get("index_topk"):
        features.append(f"sparse attention to {config.get('index_topk')} tokens: attention reads the whole context")
    if config.get("num_nextn_predict_layers"):
        features.append("multi-token prediction layers: neither loaded nor run")
    if config.has_outside("vision_config") or config.has_outside("audio_config"):
        features.append("image and audio encoders: neither loaded nor run")
    projection = config.get("word_embed_proj_dim")
    if projection is not None and projection != config.get("hidden_size"):
        features.append("embeddings narrower than the network: counted at full width")
    return features
