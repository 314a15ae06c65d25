#!/usr/bin/env python3
"""Makes the tiny encoders of the tests beside this file: random numbers as folders of Hugging Face's, texts, and their embeddings in float64.

    pip install torch safetensors numpy
    python tests/golden/encoder/make.py

The forward pass is that of benches/peers/encoder.py. The tokens of the texts are found here by looking up whole words, so that those
of `tokenizer.json` are checked too.
"""
import json
import pathlib
import sys

import numpy as np
import torch
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parents[2] / "benches" / "peers"))
from encoder import Bert  # noqa: E402

WIDTH, INNER, HEADS, LAYERS, POSITIONS = 16, 24, 2, 2, 24
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = "the cat sat on a mat and saw two dogs . , ! sun ##s run ##ning".split()
VOCABULARY = {word: i for i, word in enumerate(SPECIAL + WORDS)}
# Each with its tokens between those at the beginning and the end. The last is longer than the encoder takes.
TEXTS = [
    ("The cat sat on a mat.", "the cat sat on a mat ."),
    ("", ""),
    ("Two DOGS saw the sun, running!", "two dogs saw the sun , run ##ning !"),
    ("suns", "sun ##s"),
    ("a zebra", "a [UNK]"),
    ("The cat saw a dogs", "the cat saw a dogs"),
    (" ".join(["the cat and"] * 9), " ".join(["the cat and"] * 9)),
]


def write(name: str, value) -> None:
    path = HERE / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n")


def main():
    torch.manual_seed(7)
    tensors = {}

    def tensor(name: str, *shape: int, scale: float = 0.5, mean: float = 0.0):
        tensors[name] = mean + scale * torch.randn(shape)

    def linear(name: str, rows: int, cols: int):
        tensor(f"{name}.weight", rows, cols)
        tensor(f"{name}.bias", rows)

    def norm(name: str):
        tensor(f"{name}.weight", WIDTH, scale=0.2, mean=1.0)
        tensor(f"{name}.bias", WIDTH, scale=0.2)

    for table, rows in [("word", len(VOCABULARY)), ("position", POSITIONS), ("token_type", 2)]:
        tensor(f"embeddings.{table}_embeddings.weight", rows, WIDTH)
    norm("embeddings.LayerNorm")
    for i in range(LAYERS):
        for part in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            linear(f"encoder.layer.{i}.{part}", WIDTH, WIDTH)
        norm(f"encoder.layer.{i}.attention.output.LayerNorm")
        linear(f"encoder.layer.{i}.intermediate.dense", INNER, WIDTH)
        linear(f"encoder.layer.{i}.output.dense", WIDTH, INNER)
        norm(f"encoder.layer.{i}.output.LayerNorm")
    linear("pooler.dense", WIDTH, WIDTH)
    tensors["embeddings.position_ids"] = torch.arange(POSITIONS).unsqueeze(0)
    save_file(tensors, HERE / "model.safetensors", {"format": "pt"})
    sizes = {"hidden_size": WIDTH, "intermediate_size": INNER, "num_attention_heads": HEADS, "num_hidden_layers": LAYERS}
    tables = {"vocab_size": len(VOCABULARY), "max_position_embeddings": POSITIONS, "type_vocab_size": 2}
    write("config.json", {"model_type": "bert", "hidden_act": "gelu", "layer_norm_eps": 1e-12, **sizes, **tables})
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    write("modules.json", [{"idx": i, "path": path, "type": f"sentence_transformers.models.{kind}"} for i, (path, kind) in enumerate(kinds)])
    modes = {f"pooling_mode_{mode}": mode == "mean_tokens" for mode in ("cls_token", "mean_tokens", "max_tokens")}
    write("1_Pooling/config.json", {"word_embedding_dimension": WIDTH, **modes})
    write("sentence_bert_config.json", {"max_seq_length": 20})
    template = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "[SEP]", "type_id": 0}}]
    write("tokenizer.json", {
        "version": "1.0",
        # Both are for other programs.
        "truncation": {"max_length": 6, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
        "padding": {"strategy": {"Fixed": 12}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"},
        "added_tokens": [{"id": VOCABULARY[t], "special": True, "content": t, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False} for t in SPECIAL],
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing", "single": template, "pair": template, "special_tokens": {t: {"id": t, "ids": [VOCABULARY[t]], "tokens": [t]} for t in ("[CLS]", "[SEP]")}},
        "decoder": None,
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": VOCABULARY},
    })
    model = Bert(HERE, torch.float64)
    (HERE / "texts.txt").write_text("".join(f"{text}\n" for text, _ in TEXTS))
    for name, model.takes_first in [("embeddings", False), ("embeddings-cls", True)]:
        rows = []
        for _, tokens in TEXTS:
            ids = [VOCABULARY[t] for t in ["[CLS]", *tokens.split()[:18], "[SEP]"]]
            rows.append(model.embed(torch.tensor([ids])).numpy())
        np.save(HERE / f"{name}.npy", np.concatenate(rows).astype(np.float32))


if __name__ == "__main__":
    main()
