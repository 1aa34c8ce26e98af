"""LlamaFit asked about a model: from its own catalogue, or by an entry written as its custom models ask for.

Its catalogue holds few of the configurations. An entry of ours gives it the facts that its own reader takes from a
GGUF header: bytes of weights by kind and bytes of cache for each token. That is right for plain attention only, so a
latent (MLA) or recurrent cache is left to its own catalogue.
"""

import json
import tempfile
from pathlib import Path

from rivals_ask import Answer, NoAnswerError, Subject, said

from planner.gguf.ggml_types import tensor_bytes
from planner.types.model import Layout

_PLAIN = ("llama", "qwen2", "qwen3", "qwen3moe")


class LlamaFit:
    """LlamaFit's budget for one model placed on the CPU."""

    name = "llamafit"
    claims = (
        "total: RAM required by its budget: weights + cache + compute buffer + logits of a whole batch + 1 GiB for the"
        " server process; asked for a micro-batch of 512 (its own choice is 2048); f16 cache; no vision"
    )

    def __init__(self, program: Path) -> None:
        self.program = program

    def version(self) -> str:
        """What ``--version`` says."""
        return said([self.program, "--version"]).split()[-1]

    def ask(self, subject: Subject) -> Answer:
        """``llamafit --json plan``, by its catalogue when it holds model and quantization, else by an entry of ours."""
        if subject.configuration.cache_type != "f16":
            raise NoAnswerError("no option for the cache's type")
        try:
            return self._plan(subject, subject.configuration.model, Path("none"))
        except NoAnswerError as error:
            if subject.model.architecture not in _PLAIN:
                raise NoAnswerError(f"not in its catalogue: {error}") from error
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "custom_models.yaml"
            # JSON is YAML, too.
            path.write_text(json.dumps([entry(subject)]), encoding="utf-8")
            return self._plan(subject, "custom", path)

    def _plan(self, subject: Subject, name: str, custom: Path) -> Answer:
        each = subject.configuration
        command = [
            self.program, "--json", "plan", name, "--quant", each.quantization, "--context", str(each.context_tokens),
            "--ub", "512", "--no-vision",
        ]  # fmt: skip
        told = said(command, env={"LLAMAFIT_CUSTOM_MODELS": str(custom)})
        return llamafit_answer(json.loads(told), each.context_tokens)


def llamafit_answer(told: dict[str, object], context_tokens: int) -> Answer:
    """The budget of a plan; raises NoAnswerError when it planned something else than it was asked for."""
    placement = told["placement"]
    assert isinstance(placement, dict)
    planned = (placement["mode"], placement["context"], placement["micro_batch"], placement["kv_type"])
    if planned != ("cpu", context_tokens, 512, "f16"):
        raise NoAnswerError(f"planned {planned} instead")
    parts: dict[str, int] = {}
    for line in placement["budget"]["lines"]:
        parts[_KINDS.get(line["component"], "weights")] = (
            parts.get(_KINDS.get(line["component"], "weights"), 0) + line["bytes"]
        )
    return Answer(
        total=placement["budget"]["ram_required"],
        weights=parts["weights"],
        cache=parts["cache"],
        compute=parts["compute"],
        context=parts["cache"] + parts["compute"],
    )


_KINDS = {
    "kv-cache": "cache",
    "recurrent-state": "cache",
    "compute-buffer": "compute",
    "output-buffer": "compute",
    "process-overhead": "process",
}


def entry(subject: Subject) -> dict[str, object]:
    """A custom model of LlamaFit with the facts of the phantom's header; what it never reads for memory is empty."""
    layout, model = subject.layout, subject.model
    billions = {"total_b": model.parameters / 1e9, "active_b": model.parameters_active / 1e9}
    quantization = {
        "name": subject.configuration.quantization,
        "files": [subject.path.name],
        "bytes": subject.path.stat().st_size,
        "gguf_facts": facts(layout),
    }
    return {
        "id": "custom",
        "name": model.name,
        "vendor": model.vendor,
        "family": model.family,
        "release_date": model.released or "2025-01-01",
        "license": {"spdx": "other", "url": "https://example.org/licence"},
        "params": billions,
        "architecture": {"class": "moe" if "moe" in model.architecture else "dense", "gguf_arch": model.architecture},
        "context": {"native": model.context_native},
        "capabilities": ["tools"],
        "use_cases": ["general"],
        "quality": {"baseline": 50},
        "sources": [{"repo": model.hf_repo, "kind": "gguf", "trust": "official", "quants": [quantization]}],
    }


def facts(layout: Layout) -> dict[str, object]:
    """What LlamaFit keeps of a GGUF header of plain attention, from the metadata and the tensor table."""
    meta = layout.metadata
    arch = str(meta["general.architecture"])

    def number(key: str) -> int | None:
        value = meta.get(f"{arch}.{key}")
        return int(value) if isinstance(value, int) else None

    sizes = {tensor.name: tensor_bytes(tensor.type, tensor.dims) for tensor in layout.tensors}
    experts = sum(size for name, size in sizes.items() if "_exps" in name)
    blocks = sum(size for name, size in sizes.items() if name.startswith("blk."))
    ends = {name: sizes.get(f"{name}.weight", 0) for name in ("token_embd", "output")}
    layers, heads = number("block_count") or 0, number("attention.head_count") or 1
    width = (number("embedding_length") or 0) // heads
    key, value = number("attention.key_length") or width, number("attention.value_length") or width
    cache_heads = number("attention.head_count_kv") or heads
    return {
        "arch": arch,
        "n_layer": layers,
        "n_embd": number("embedding_length"),
        "n_vocab": number("vocab_size"),
        "n_head": heads,
        "n_head_kv": cache_heads,
        "head_dim": key,
        "value_head_dim": value,
        "attention_layers": layers,
        "attention_layers_source": "tensors",
        "context_length": number("context_length"),
        "n_expert": number("expert_count"),
        "n_expert_used": number("expert_used_count"),
        "has_shared_experts": False,
        "bytes_expert_weights": experts,
        "bytes_dense_block_weights": blocks - experts,
        "bytes_shared_expert_weights": 0,
        "bytes_output_head": ends["output"],
        "bytes_token_embd": ends["token_embd"],
        "bytes_lazy_tables": 0,
        "bytes_global_weights": sum(sizes.values()) - blocks - sum(ends.values()),
        "bytes_total": sum(sizes.values()),
        "kv_bytes_per_token_f16": layers * cache_heads * (key + value) * 2,
    }
