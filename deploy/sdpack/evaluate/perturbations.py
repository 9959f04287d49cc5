"""Changes to images and captions that a judge should not reward.

Each damage is small enough that the image still shows its prompt. Blur, blocks and borders are
relative to the image's size, so that a judge that scales images sees the same at every size. Noise
and JPEG are not: scaled down, a large image shows less of them.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from sdpack.evaluate.image_changes import LUMINANCE, blurred, each, to_bytes
from sdpack.runtime.pipeline import Pictures

SMALLEST_WORD = 4  # letters of a word that is exchanged in a caption


@dataclass(frozen=True)
class Perturbation:
    """A change to images.

    Attributes:
        name: a description in words.
        apply: takes uint8 (N, H, W, 3) and a generator, and returns the same shape.
        is_damage: whether a good judge must not reward it. Mirroring does not damage most images.
    """

    name: str
    apply: Callable[[Pictures, np.random.Generator], Pictures]
    is_damage: bool = True


def _noise(deviation: float) -> Perturbation:
    def apply(pictures: Pictures, rng: np.random.Generator) -> Pictures:
        noise = rng.normal(0.0, deviation, pictures.shape)
        return to_bytes(pictures + noise)

    return Perturbation(f"noise of standard deviation {deviation:g}", apply)


def _blur(share: float) -> Perturbation:
    def apply(pictures: Pictures, _: np.random.Generator) -> Pictures:
        return blurred(pictures, share)

    return Perturbation(f"blur over {share:.1%} of the side", apply)


def _jpeg(quality: int) -> Perturbation:
    def compressed(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file)

    return Perturbation(f"JPEG of quality {quality}", lambda p, _: each(p, compressed))


def _tint(levels: int) -> Perturbation:
    shift = np.array([levels, 0, -levels], np.float32)
    return Perturbation(f"tint by {levels} levels", lambda p, _: to_bytes(p + shift))


def _saturation(factor: float) -> Perturbation:
    def apply(pictures: Pictures, _: np.random.Generator) -> Pictures:
        grey = (pictures.astype(np.float32) @ LUMINANCE)[..., np.newaxis]
        return to_bytes(grey + np.float32(factor) * (pictures - grey))

    return Perturbation(f"saturation times {factor:g}", apply)


def _blocks(share: float) -> Perturbation:
    def apply(pictures: Pictures, _: np.random.Generator) -> Pictures:
        side = max(2, round(share * pictures.shape[1]))
        height, width = pictures.shape[1:3]
        rows, columns = -(-height // side), -(-width // side)
        small = each(pictures, lambda i: i.resize((columns, rows), Image.Resampling.BOX))
        large = small.repeat(side, axis=1).repeat(side, axis=2)
        return large[:, :height, :width]

    return Perturbation(f"blocks of {share:.1%} of the side", apply)


def _crop(share: float) -> Perturbation:
    def cropped(image: Image.Image) -> Image.Image:
        width, height = image.size
        x, y = round(share * width), round(share * height)
        inner = image.crop((x, y, width - x, height - y))
        return inner.resize(image.size, Image.Resampling.BICUBIC)

    return Perturbation(f"borders of {share:.0%} cut off", lambda p, _: each(p, cropped))


def _mirror(pictures: Pictures, _: np.random.Generator) -> Pictures:
    return np.ascontiguousarray(pictures[:, :, ::-1])


PERTURBATIONS: Sequence[Perturbation] = (
    _noise(4),
    _noise(12),
    _noise(25),
    _blur(1 / 128),
    _blur(1 / 64),
    _jpeg(60),
    _jpeg(20),
    _tint(5),
    _tint(15),
    _saturation(0.6),
    _saturation(1.5),
    _blocks(1 / 32),
    _blocks(1 / 16),
    _crop(0.1),
    Perturbation("mirrored", _mirror, is_damage=False),
)


def wrong_captions(texts: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Return for each caption another one of the list; they must not all be equal."""
    return [_another(texts, text, rng) for text in texts]


def changed_captions(
    texts: Sequence[str], rng: np.random.Generator, known: Mapping[str, str] | None = None
) -> list[str]:
    """Return captions with one detail changed.

    Args:
        texts: the captions.
        rng: chooses the words.
        known: for some captions, the changed one, such as with two colours exchanged. In others, a
            word is replaced by one of another caption.
    """
    written = known or {}
    return [written.get(text) or _with_other_word(text, texts, rng) for text in texts]


def _with_other_word(text: str, texts: Sequence[str], rng: np.random.Generator) -> str:
    words = text.split()
    long = [place for place, word in enumerate(words) if len(word) >= SMALLEST_WORD]
    place = int(rng.choice(long or range(len(words))))
    spare = {
        word.strip(",.") for word in _another(texts, text, rng).split() if word not in words
    } or {"nothing"}
    longest = sorted(spare, key=lambda word: (-len(word), word))[0]
    mark = "," if words[place].endswith(",") else ""
    return " ".join([*words[:place], longest + mark, *words[place + 1 :]])


def _another(texts: Sequence[str], text: str, rng: np.random.Generator) -> str:
    others = sorted(set(texts) - {text})
    return others[int(rng.integers(len(others)))] if others else "nothing"
