"""Writes a GGUF model as a directory that vLLM loads, with a LoRA adapter; run by vLLM's Python."""

import json
import sys
from pathlib import Path
from typing import Any

import torch  # pyright: ignore[reportMissingImports]
from safetensors.torch import save_file  # pyright: ignore[reportMissingImports]
from transformers import AutoModelForCausalLM, AutoTokenizer  # pyright: ignore[reportMissingImports]


def main(weights: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    place = {"pretrained_model_name_or_path": str(weights.parent), "gguf_file": weights.name}
    model = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.bfloat16)
    # Its own way to save refuses weights that were quantized. The head is the embedding.
    state = {name: each.contiguous() for name, each in model.state_dict().items() if name != "lm_head.weight"}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    model.config.architectures = ["LlamaForCausalLM"]
    model.config.tie_word_embeddings = True
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**place).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config.pop("quantization_config", None)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    write_adapter(folder / "adapter", model.config)


def write_adapter(folder: Path, config: Any, rank: int = 8) -> None:
    """Write an adapter of random weights, large enough to change every reply."""
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    width, heads = config.hidden_size, config.num_attention_heads * config.head_dim
    state = {}
    for layer in range(config.num_hidden_layers):
        name = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        state[f"{name}.lora_A.weight"] = torch.randn(rank, width) * 0.1
        state[f"{name}.lora_B.weight"] = torch.randn(heads, rank) * 0.1
    save_file(state, folder / "adapter_model.safetensors")
    described = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": ["q_proj"]}
    described |= {"task_type": "CAUSAL_LM", "bias": "none", "base_model_name_or_path": ""}
    (folder / "adapter_config.json").write_text(json.dumps(described, indent=2))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
