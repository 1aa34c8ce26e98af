"""Projectors as llama.cpp's converter writes them, without their weights: real sizes, exact tensor names and types.

Sources: the tensor names of ``tools/mtmd/clip-impl.h`` and ``gguf-py/gguf/constants.py``, what ``conversion/qwenvl.py``
and ``conversion/qwen3vl.py`` write (llama.cpp at commit 0c1e57098), the sizes of each model's ``config.json``.
"""

from planner.types.metadata import GgufValue
from planner.types.model import Layout, TensorSpec

__all__ = ["gemma3", "qwen2_audio", "qwen2_vl", "qwen3_vl", "qwen25_vl"]


class _Tensors(list[TensorSpec]):
    """Tensors in file order: matrices in one type and vectors in F32, as ``--outtype`` leaves them."""

    def __init__(self, matrices: str = "F16") -> None:
        super().__init__()
        self.matrices = matrices

    def put(self, name: str, *dims: int, type_: str | None = None) -> None:
        self.append(TensorSpec(name=name, dims=dims, type=type_ or ("F32" if len(dims) == 1 else self.matrices)))

    def linear(self, name: str, inputs: int, outputs: int) -> None:
        self.put(f"{name}.weight", inputs, outputs)
        self.put(f"{name}.bias", outputs)

    def norm(self, name: str, width: int, *, bias: bool = True) -> None:
        self.put(f"{name}.weight", width)
        if bias:
            self.put(f"{name}.bias", width)


def _vision(projector: str, more: dict[str, object], **sizes: int) -> dict[str, object]:
    keys = {
        "layers": "block_count", "width": "embedding_length", "inner": "feed_forward_length", "image": "image_size",
        "heads": "attention.head_count", "patch": "patch_size", "out": "projection_dim",
    }  # fmt: skip
    return {
        "general.architecture": "clip",
        "general.type": "mmproj",
        "clip.has_vision_encoder": True,
        "clip.projector_type": projector,
        **{f"clip.vision.{key}": sizes[name] for name, key in keys.items()},
        "clip.vision.attention.layer_norm_epsilon": 1e-6,
        "clip.vision.image_mean": (0.5, 0.5, 0.5),
        "clip.vision.image_std": (0.5, 0.5, 0.5),
        **more,
    }


def _layout(metadata: dict[str, object], tensors: _Tensors) -> Layout:
    return Layout(architecture="clip", metadata=metadata, tensors=tuple(tensors), layers=())


def _separate_attention(tensors: _Tensors, block: str, width: int) -> None:
    for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
        tensors.linear(f"{block}.{name}", width, width)


def qwen2_vl(layers: int = 32, width: int = 1280, out: int = 3584) -> Layout:
    """Qwen2-VL-7B: layer norms with biases, two matrices in a feed-forward layer."""
    tensors = _Tensors()
    for name in ("v.patch_embd.weight", "v.patch_embd.weight.1"):
        tensors.put(name, 14, 14, 3, width)
    for layer in range(layers):
        block = f"v.blk.{layer}"
        _separate_attention(tensors, block, width)
        tensors.linear(f"{block}.ffn_up", width, 4 * width)
        tensors.linear(f"{block}.ffn_down", 4 * width, width)
        tensors.norm(f"{block}.ln1", width)
        tensors.norm(f"{block}.ln2", width)
    tensors.norm("v.post_ln", width)
    tensors.linear("mm.0", 4 * width, 4 * width)
    tensors.linear("mm.2", 4 * width, out)
    sizes = {"layers": layers, "width": width, "inner": 4 * width, "image": 560, "heads": 16, "patch": 14, "out": out}
    return _layout(_vision("qwen2vl_merger", {}, **sizes), tensors)


def qwen25_vl(layers: int = 32, width: int = 1280, out: int = 3584) -> Layout:
    """Qwen2.5-VL-7B: RMS norms, three matrices in a feed-forward layer, attention in windows."""
    inner, tensors = 3420, _Tensors()
    for name in ("v.patch_embd.weight", "v.patch_embd.weight.1"):
        tensors.put(name, 14, 14, 3, width)
    for layer in range(layers):
        block = f"v.blk.{layer}"
        _separate_attention(tensors, block, width)
        tensors.linear(f"{block}.ffn_gate", width, inner)
        tensors.linear(f"{block}.ffn_up", width, inner)
        tensors.linear(f"{block}.ffn_down", inner, width)
        tensors.norm(f"{block}.ln1", width, bias=False)
        tensors.norm(f"{block}.ln2", width, bias=False)
    tensors.norm("v.post_ln", width, bias=False)
    tensors.linear("mm.0", 4 * width, 4 * width)
    tensors.linear("mm.2", 4 * width, out)
    sizes = {"layers": layers, "width": width, "inner": inner, "image": 560, "heads": 16, "patch": 14, "out": out}
    more = {"clip.use_silu": True, "clip.vision.n_wa_pattern": 8}
    return _layout(_vision("qwen2.5vl_merger", more, **sizes), tensors)


def qwen3_vl(
    layers: int = 27, width: int = 1152, out: int = 4096, deep: tuple[int, ...] = (8, 16, 24), type_: str = "F16"
) -> Layout:
    """Qwen3-VL-8B, and with ``deep`` empty the tower of Qwen3.5: one matrix for Q, K and V, learned positions.

    In a file of BF16 the patch embedding is F32 (``MmprojModel.tensor_force_quant`` in ``conversion/base.py``).
    """
    inner, tensors = 4304, _Tensors(type_)
    for name in ("v.patch_embd.weight", "v.patch_embd.weight.1"):
        tensors.put(name, 16, 16, 3, width, type_="F32" if type_ == "BF16" else "F16")
    tensors.put("v.patch_embd.bias", width)
    tensors.put("v.position_embd.weight", width, 2304, type_="F32")
    for layer in range(layers):
        block = f"v.blk.{layer}"
        tensors.linear(f"{block}.attn_qkv", width, 3 * width)
        tensors.linear(f"{block}.attn_out", width, width)
        tensors.linear(f"{block}.ffn_up", width, inner)
        tensors.linear(f"{block}.ffn_down", inner, width)
        tensors.norm(f"{block}.ln1", width)
        tensors.norm(f"{block}.ln2", width)
    for layer in deep:
        tensors.norm(f"v.deepstack.{layer}.norm", 4 * width)
        tensors.linear(f"v.deepstack.{layer}.fc1", 4 * width, 4 * width)
        tensors.linear(f"v.deepstack.{layer}.fc2", 4 * width, out)
    tensors.norm("v.post_ln", width)
    tensors.linear("mm.0", 4 * width, 4 * width)
    tensors.linear("mm.2", 4 * width, out)
    sizes = {"layers": layers, "width": width, "inner": inner, "image": 768, "heads": 16, "patch": 16, "out": out}
    flags = GgufValue(type="[bool]", value=tuple(layer in deep for layer in range(layers)))
    more = {
        "clip.use_gelu": True,
        "clip.vision.spatial_merge_size": 2,
        "clip.vision.is_deepstack_layers": flags,
    }
    return _layout(_vision("qwen3vl_merger", more, **sizes), tensors)


def gemma3(layers: int = 27, out: int = 2560) -> Layout:
    """Gemma 3's SigLIP: every image is 896 pixels square."""
    width, inner, tensors = 1152, 4304, _Tensors()
    tensors.put("v.patch_embd.weight", 14, 14, 3, width)
    tensors.put("v.patch_embd.bias", width)
    tensors.put("v.position_embd.weight", width, 4096, type_="F32")
    for layer in range(layers):
        block = f"v.blk.{layer}"
        _separate_attention(tensors, block, width)
        tensors.linear(f"{block}.ffn_up", width, inner)
        tensors.linear(f"{block}.ffn_down", inner, width)
        tensors.norm(f"{block}.ln1", width)
        tensors.norm(f"{block}.ln2", width)
    tensors.norm("v.post_ln", width)
    tensors.put("mm.input_projection.weight", out, width)
    tensors.put("mm.soft_emb_norm.weight", width)
    sizes = {"layers": layers, "width": width, "inner": inner, "image": 896, "heads": 16, "patch": 14, "out": out}
    return _layout(_vision("gemma3", {"clip.use_gelu": True}, **sizes), tensors)


def qwen2_audio(layers: int = 32, width: int = 1280, out: int = 3584) -> Layout:
    """The audio tower of Qwen2-Audio and Qwen2.5-Omni: Whisper's encoder over 30 seconds."""
    inner, tensors = 4 * width, _Tensors()
    tensors.put("a.conv1d.1.weight", 3, 128, width)
    tensors.put("a.conv1d.1.bias", 1, width, type_="F32")
    tensors.put("a.conv1d.2.weight", 3, width, width)
    tensors.put("a.conv1d.2.bias", 1, width, type_="F32")
    tensors.put("a.position_embd.weight", width, 1500, type_="F32")
    for layer in range(layers):
        block = f"a.blk.{layer}"
        for name in ("attn_q", "attn_v", "attn_out"):
            tensors.linear(f"{block}.{name}", width, width)
        tensors.put(f"{block}.attn_k.weight", width, width)
        tensors.linear(f"{block}.ffn_up", width, inner)
        tensors.linear(f"{block}.ffn_down", inner, width)
        tensors.norm(f"{block}.ln1", width)
        tensors.norm(f"{block}.ln2", width)
    tensors.norm("a.post_ln", width)
    tensors.linear("mm.a.fc", width, out)
    metadata = {
        "general.architecture": "clip",
        "general.type": "mmproj",
        "clip.has_audio_encoder": True,
        "clip.projector_type": "qwen2a",
        "clip.audio.block_count": layers,
        "clip.audio.embedding_length": width,
        "clip.audio.feed_forward_length": inner,
        "clip.audio.attention.head_count": 20,
        "clip.audio.attention.layer_norm_epsilon": 1e-5,
        "clip.audio.projection_dim": out,
        "clip.audio.num_mel_bins": 128,
    }
    return _layout(metadata, tensors)
