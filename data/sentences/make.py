#!/usr/bin/env python3
"""Sentences without labels to calibrate a text encoder on, one a line, in a seeded order: the definitions and examples of WordNet 3.0, and prose.

    apt-get download wordnet-base && dpkg-deb -x wordnet-base*.deb wordnet
    python data/sentences/make.py wordnet/usr/share/wordnet OUT.txt [--prose FOLDER ..] [--sets FOLDER] [--most 20000] [--seed 0]

A gloss is cut at its semicolons, quotation marks fall away, and pieces of fewer than `--least` words are left out. `--prose` is a folder of
pages of HTML, or of plain text or Markdown, whose paragraphs are parted by empty lines, or by lines of `%` as those of fortune(6). Of them come the
sentences of at most 60 words that end with a full stop, question mark or exclamation mark, nine tenths of them letters and spaces. Of several sources every beginning of the output has as many sentences of each, until one
has no more. `--sets` is a folder of .tsv files of sentence pairs (score, sentence, sentence) that an encoder is evaluated on: lines that are equal to one of their
sentences but for case, spaces and punctuation are dropped, and counted.
"""
import argparse
import html.parser
import itertools
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


class Paragraphs(html.parser.HTMLParser):
    """The texts of a page between the tags that begin or end a block."""

    INLINE = {"a", "abbr", "b", "cite", "code", "em", "i", "q", "small", "span", "strong", "sub", "sup", "tt", "u"}
    HIDDEN = {"head", "pre", "script", "style"}

    def __init__(self, page: str):
        super().__init__()
        self.texts, self.hidden = [""], 0
        self.feed(page)
        self.close()

    def block(self, tag: str, hidden: int) -> None:
        if tag in self.HIDDEN:
            self.hidden = max(0, self.hidden + hidden)
        if tag == "body":
            self.hidden = 0
        if tag not in self.INLINE:
            self.texts.append("")

    def handle_starttag(self, tag, attrs):
        self.block(tag, 1)

    def handle_endtag(self, tag):
        self.block(tag, -1)

    def handle_data(self, data):
        if self.hidden == 0:
            self.texts[-1] += data


def prose(folder: pathlib.Path, least: int):
    """The sentences of all pages of a folder."""
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix in ("", ".txt", ".md", ".html")):
        page = path.read_text(encoding="utf-8", errors="replace")
        texts = Paragraphs(page).texts if path.suffix == ".html" else re.split(r"\n\s*%?\s*\n", page)
        for text in texts:
            for sentence in re.split(r"(?<=[.!?])[\"')]* (?=[\"'(]*[A-Z])", " ".join(text.split())):
                sentence = sentence.strip("\"'() ")
                letters = sum(c.isalpha() or c == " " for c in sentence)
                if least <= len(sentence.split()) <= 60 and sentence.endswith((".", "!", "?")) and letters >= 0.9 * len(sentence):
                    yield sentence


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wordnet", type=pathlib.Path, help="folder with data.noun and the like")
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--prose", type=pathlib.Path, nargs="+", default=[], help="folders of pages whose sentences are taken, too")
    parser.add_argument("--sets", type=pathlib.Path, help="folder of sets whose sentences are left out")
    parser.add_argument("--most", type=int, default=20_000, help="most sentences")
    parser.add_argument("--least", type=int, default=5, help="fewest words of a sentence")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    evaluated = set()
    for path in sorted(args.sets.glob("*.tsv")) if args.sets else []:
        for line in path.read_text(encoding="utf-8").splitlines():
            evaluated.update(key(sentence) for sentence in line.split("\t")[1:])
    seen, dropped, orders = set(), 0, []
    for pieces_of in [pieces(args.wordnet, args.least), *(prose(folder, args.least) for folder in args.prose)]:
        sentences = {}
        for sentence in pieces_of:
            if (its := key(sentence)) in evaluated:
                dropped += 1
            elif its not in seen:
                sentences.setdefault(its, sentence)
        seen.update(sentences)
        order = sorted(sentences.values())
        random.Random(args.seed).shuffle(order)
        orders.append(order)
    together = itertools.chain.from_iterable(itertools.zip_longest(*orders))
    order = [sentence for sentence in together if sentence is not None]
    args.out.write_text("".join(f"{s}\n" for s in order[: args.most]), encoding="utf-8")
    print(f"{min(len(order), args.most)} of {len(order)} sentences; {dropped} dropped, as they are in the sets")


if __name__ == "__main__":
    main()
