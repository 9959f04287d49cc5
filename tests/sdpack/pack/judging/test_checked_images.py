from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sdpack.documents.catalog_files import default_catalog
from sdpack.errors import InputError
from sdpack.pack.judging.checked_images import from_folder, images_here, real


def folder_of(place: Path, sizes: list[int], captions: int) -> Path:
    place.mkdir()
    for number, side in enumerate(sizes):
        Image.new("RGB", (side, side), (number, 0, 0)).save(place / f"{number}.png")
    lines = [json.dumps({"text": f"caption {number}"}) for number in range(captions)]
    (place / "captions.jsonl").write_text("\n".join(lines))
    return place


def test_images_of_a_folder_come_with_the_captions_of_their_lines(tmp_path: Path) -> None:
    given = from_folder(folder_of(tmp_path / "mine", [8, 8, 8], 3))
    assert given.name == "given"
    assert given.images[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert given.captions == ["caption 0", "caption 1", "caption 2"]


def test_a_folder_that_does_not_fit_its_captions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has 2 images, but captions\.jsonl has 3"):
        from_folder(folder_of(tmp_path / "few", [8, 8], 3))
    with pytest.raises(InputError, match="different sizes"):
        from_folder(folder_of(tmp_path / "mixed", [8, 9], 2))
    damaged = folder_of(tmp_path / "damaged", [8, 8], 2)
    (damaged / "1.png").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"1\.png is not an image"):
        from_folder(damaged)


def test_real_images_are_spread_over_the_prompts() -> None:
    located = default_catalog()
    given = real(located, 20)
    assert given is not None
    assert given.images.shape == (20, 64, 64, 3)
    prompts = located.prompts(located.catalog.quality.prompts)
    assert given.captions[0] == prompts[0]
    assert given.captions[-1] == prompts[-1]
    assert np.ptp(given.images) > 100


def test_a_catalog_without_real_images_needs_others(tmp_path: Path) -> None:
    located = default_catalog()
    quality = located.catalog.quality.model_copy(update={"real_images": None})
    without = type(located)(located.catalog.model_copy(update={"quality": quality}), tmp_path)
    with pytest.raises(InputError, match="no real images; give a --bundle"):
        images_here(without, None, None, 20, lambda _: None)
