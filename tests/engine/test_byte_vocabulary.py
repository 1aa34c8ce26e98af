"""A vocabulary of bytes reads and writes every text, in the engine itself."""

import subprocess
import sys

import msgspec
import pytest

from planner import catalogue
from planner.engine.byte_vocabulary import CHAT_TEMPLATE, byte_symbols, with_byte_vocabulary
from planner.engine.phantom import write_phantom
from planner.types.model import Layout, TensorSpec

_PROBE = """
import json, random, sys
import llama_cpp
model = llama_cpp.Llama(sys.argv[1], vocab_only=True, verbose=False)
words = random.Random(7)
texts = ["", "Hello", "  two  spaces\\n\\ttab", "東京 Straße 🦙", "<|im_start|>", "\\x00\\x7f", "a" * 500]
texts += ["".join(chr(words.choice([words.randrange(32, 0x250), words.randrange(0x3000, 0xD7FF), words.randrange(
    0x10000, 0x10FFFF)])) for _ in range(40)) for _ in range(200)]
wrong = []
for text in texts:
    data = text.encode()
    tokens = model.tokenize(data, add_bos=False, special=False)
    if model.detokenize(tokens) != data or len(tokens) != len(data):
        wrong.append(text)
special = model.tokenize(b"<|im_start|>user<|im_end|>", add_bos=False, special=True)
print(json.dumps({"wrong": wrong, "special": special, "eos": model.token_eos(), "size": model.n_vocab(),
    "template": model.metadata["tokenizer.chat_template"], "filler": model.detokenize([300]).decode()}))
"""


def layout(vocabulary: int) -> Layout:
    """A model of the catalogue's with a small vocabulary."""
    known = catalogue.load()
    whole = known.layout(known.model("qwen3-0.6b"), 1)
    heads = {"token_embd.weight", "output.weight"}
    tensors = tuple(
        TensorSpec(name=each.name, dims=(each.dims[0], vocabulary), type=each.type) if each.name in heads else each
        for each in whole.tensors
    )
    return msgspec.structs.replace(whole, tensors=tensors)


@pytest.mark.engine
def test_the_engine_reads_and_writes_any_text_with_it(tmp_path):
    """A token for each byte, both ways exactly; specials are one token, fillers are words."""
    path = tmp_path / "bytes.gguf"
    write_phantom(path, with_byte_vocabulary(layout(512)))
    done = subprocess.run([sys.executable, "-c", _PROBE, str(path)], capture_output=True, check=True, timeout=60)
    told = msgspec.json.decode(done.stdout)
    assert told["wrong"] == []
    assert told["special"] == [257, *b"user", 258]
    assert (told["eos"], told["size"], told["filler"]) == (258, 512, " w41")
    assert told["template"] == CHAT_TEMPLATE


def test_each_byte_has_a_symbol_of_its_own():
    """256 printable characters, none twice; letters stand for themselves."""
    symbols = byte_symbols()
    assert len(set(symbols)) == 256
    assert all(symbol.isprintable() for symbol in symbols)
    assert symbols[ord("a")] == "a"


def test_a_vocabulary_without_room_is_refused():
    """Fewer tokens than bytes and specials hold no text."""
    with pytest.raises(ValueError, match="no room for 256 bytes"):
        with_byte_vocabulary(layout(258))
    assert with_byte_vocabulary(layout(259)).metadata["qwen3.vocab_size"] == 259
