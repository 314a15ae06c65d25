#!/usr/bin/env python3
"""Sentences without labels to calibrate a text encoder on: the definitions and examples of WordNet 3.0, one a line, in a seeded order.

    apt-get download wordnet-base && dpkg-deb -x wordnet-base*.deb wordnet
    python data/sentences/make.py wordnet/usr/share/wordnet OUT.txt [--sets FOLDER] [--most 20000] [--seed 0]

A gloss is cut at its semicolons, quotation marks fall away, and pieces of fewer than `--least` words are left out. `--sets` is a
folder of .tsv files of sentence pairs (score, sentence, sentence) that an encoder is evaluated on: lines that are equal to one of their
sentences but for case, spaces and punctuation are dropped, and counted.
"""
import argparse
import pathlib
import random
import re


def key(sentence: str) -> str:
    """What two sentences have in common that are equal but for case, spaces and punctuation."""
    return " ".join(re.findall(r"[a-z0-9]+", sentence.lower()))


def pieces(folder: pathlib.Path, least: int):
    """Definitions and examples of all senses."""
    for part in ["noun", "verb", "adj", "adv"]:
        for line in (folder / f"data.{part}").read_text(encoding="utf-8").splitlines():
            if line.startswith("  "):
                continue
            for piece in line.partition(" | ")[2].split(";"):
                sentence = piece.replace('"', "").strip()
                if len(sentence.split()) >= least:
                    yield sentence


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wordnet", type=pathlib.Path, help="folder with data.noun and the like")
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--sets", type=pathlib.Path, help="folder of sets whose sentences are left out")
    parser.add_argument("--most", type=int, default=20_000, help="most sentences")
    parser.add_argument("--least", type=int, default=5, help="fewest words of a sentence")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    evaluated = set()
    for path in sorted(args.sets.glob("*.tsv")) if args.sets else []:
        for line in path.read_text(encoding="utf-8").splitlines():
            evaluated.update(key(sentence) for sentence in line.split("\t")[1:])
    sentences, dropped = {}, 0
    for sentence in pieces(args.wordnet, args.least):
        if key(sentence) in evaluated:
            dropped += 1
        else:
            sentences.setdefault(key(sentence), sentence)
    order = sorted(sentences.values())
    random.Random(args.seed).shuffle(order)
    args.out.write_text("".join(f"{s}\n" for s in order[: args.most]), encoding="utf-8")
    print(f"{min(len(order), args.most)} of {len(order)} sentences; {dropped} dropped, as they are in the sets")


if __name__ == "__main__":
    main()
