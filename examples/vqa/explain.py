"""Explain an answer by picture and words together, in both ways of Captum's tutorials.

    python examples/vqa/explain.py [PICTURE QUESTION]

Writes the words coloured by what each contributes (HTML, terminal), and the picture's
contributions beside the picture; prints what picture and words contribute, and that their sum is
the difference of the logits.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from torch import nn

import dff
from dff.demo import creatures, model
from dff.demo.vqa import ANSWERS, PAD, encode, load, words_of
from dff.rendering import heatmap_overlay, panel
from dff.vqa import WAYS, attribute, word_html, word_terminal

SEED = 6_000_004
QUESTION = "what colour is the head"


def main(arguments: list[str], out: Path = Path("dff-vqa")) -> dict[str, float]:
    """Explain one answer; return the figures that were printed, by their names."""
    photo = arguments[0] if arguments else creatures.render(SEED, size=256, species="fox").image
    question = arguments[1] if len(arguments) > 1 else QUESTION
    picture = dff.read_image(photo)
    prep = dff.Preprocessing(size=model.INPUT_SIZE, mean=model.MEAN, std=model.STD)
    image, (ids, length) = prep.to_tensor(picture)[None], encode(question)
    network = nn.DataParallel(load())
    target = int(network(image, ids, length).argmax())
    figures = {}
    for way in WAYS:
        found = attribute(
            network, image, ids, length,
            embedding="text.embedding", target=target, pad=PAD, way=way,
        )  # fmt: skip
        text, seen = float(found.words.sum()), float(found.image.sum())
        print(f"by the {way}: {question!r} -> {ANSWERS[target]!r}")
        print(f"  {word_terminal(words_of(question), found.words.tolist())}")
        print(f"  words {text:+.3f} + picture {seen:+.3f} = {found.total:+.3f}")
        print(f"  logits {found.end:.3f} - {found.start:.3f}, delta {found.delta:+.4f}")
        figures.update({f"{way} words": text, f"{way} picture": seen, f"{way} delta": found.delta})
    out.mkdir(exist_ok=True)
    words = word_html(words_of(question), found.words.tolist())
    page = f'<!doctype html><meta charset="utf-8"><p>{words} &rarr; {ANSWERS[target]}</p>\n'
    (out / "words.html").write_text(page, encoding="utf-8")
    # What is for and what is against the answer, by its size at each pixel.
    strength = found.image.sum(0).abs().numpy()
    heat = np.minimum(strength / max(float(np.quantile(strength, 0.99)), 1e-12), 1)
    pixels = prep.to_pixels(image[0])
    drawn = heatmap_overlay(pixels, heat.astype(np.float32), image_weight=0.2)
    panel([("picture", pixels), (f"{question}? {ANSWERS[target]}", drawn)]).save(
        out / "picture.png"
    )
    print(f"wrote {out}/words.html and {out}/picture.png")
    return figures


if __name__ == "__main__":
    main(sys.argv[1:])
