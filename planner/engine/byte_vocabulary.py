"""A vocabulary of 256 bytes for a model whose own tokenizer is not here, so that a phantom can be served and talked to.

Every text is some sequence of bytes, so one token per byte and no merges read anything; the rest of the vocabulary are
fillers, each a word of its own, so that what random weights write is text. The mistake it prevents is a phantom that
can be timed but not served: without tokens a server cannot turn a request into a prompt, nor an answer into words.
"""

from collections.abc import Iterator, Mapping

import msgspec

from planner.types.metadata import GgufValue
from planner.types.model import Layout, MetadataValue

__all__ = ["CHAT_TEMPLATE", "byte_symbols", "with_byte_vocabulary"]

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""ChatML, whose three special tokens the vocabulary has."""

_END_OF_TEXT, _START, _END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
_SPECIAL = (_END_OF_TEXT, _START, _END)
_NORMAL, _CONTROL = 1, 3  # llama_token_type in llama.h
_SPACE = "\u0120"  # the symbol of the byte 0x20
_FEWEST = 256 + len(_SPECIAL)


def byte_symbols() -> tuple[str, ...]:
    """The printable character that stands for each byte in a byte-level vocabulary, in the order of the bytes.

    Bytes that print in Latin-1 stand for themselves, all others for the characters from U+0100 on in their order
    (source: Radford et al., GPT-2, 2019; unicode_byte_to_utf8 of llama.cpp at commit 0c1e57098 reads the same).
    """
    shifted = iter(range(0x100, 0x200))
    return tuple(chr(byte) if _prints(byte) else chr(next(shifted)) for byte in range(256))


def with_byte_vocabulary(layout: Layout) -> Layout:
    """``layout`` with bytes, three special tokens and fillers for a vocabulary, and a chat template of its own.

    Raises ValueError where the model's vocabulary is smaller than 259 tokens or its size is not known.
    """
    size = _vocabulary_size(layout)
    if size < _FEWEST:
        raise ValueError(f"a vocabulary of {size} tokens has no room for 256 bytes")
    fillers = size - _FEWEST
    tokens = (*byte_symbols(), *_SPECIAL, *(f"{_SPACE}w{number}" for number in range(fillers)))
    kinds = (*(_NORMAL,) * 256, *(_CONTROL,) * len(_SPECIAL), *(_NORMAL,) * fillers)
    vocabulary: dict[str, MetadataValue] = {
        f"{layout.architecture}.vocab_size": size,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": GgufValue(type="[str]", value=tokens),
        "tokenizer.ggml.token_type": GgufValue(type="[i32]", value=kinds),
        "tokenizer.ggml.merges": GgufValue(type="[str]", value=_merges(fillers)),
        "tokenizer.ggml.bos_token_id": 256,
        "tokenizer.ggml.eos_token_id": 256 + _SPECIAL.index(_END),
        "tokenizer.ggml.padding_token_id": 256,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": CHAT_TEMPLATE,
    }
    return msgspec.structs.replace(layout, metadata={**dict(_without_tokenizer(layout.metadata)), **vocabulary})


def _merges(fillers: int) -> tuple[str, ...]:
    """As many merges as a trained tokenizer has, for their memory; none applies, since no merge makes a filler."""
    return tuple(f"{_SPACE}w{number} {_SPACE}w{number}" for number in range(max(1, fillers)))


def _prints(byte: int) -> bool:
    return 0x21 <= byte <= 0x7E or 0xA1 <= byte <= 0xAC or byte >= 0xAE


def _without_tokenizer(metadata: Mapping[str, MetadataValue]) -> Iterator[tuple[str, MetadataValue]]:
    return ((key, value) for key, value in metadata.items() if not key.startswith("tokenizer."))


def _vocabulary_size(layout: Layout) -> int:
    """Rows of the embedding, which the engine holds the vocabulary against."""
    for tensor in layout.tensors:
        if tensor.name == "token_embd.weight":
            return tensor.dims[1]
    raise ValueError("the model has no token embedding, so its vocabulary has no size")
