"""The zoo with some damaged parts, whose images should score lower: few bits, missing layers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from sdpack.documents.catalog import Catalog
from sdpack.documents.catalog_files import LocatedCatalog, default_catalog
from torch import Tensor

Weights = dict[str, Tensor]
CONFIG = "config.json"


def damaged_zoo(folder: Path) -> LocatedCatalog:
    """Write damaged parts into a folder, and return the zoo's catalog with them added.

    Text encoder l loses two of its four layers (l-half) or keeps 2 bits of each weight (l-2bit), as
    do denoiser l and decoder kl.
    """
    zoo = default_catalog()
    parts = zoo.folder / "parts"
    _copy(parts / "text_encoder/l", folder / "text_encoder/l-half", _half_the_layers)
    for part in ("text_encoder/l", "denoiser/l", "decoder/kl"):
        _copy(parts / part, folder / f"{part}-2bit", _in_two_bits)
    values: dict[str, Any] = zoo.catalog.model_dump(mode="json", by_alias=True)
    _absolute(values, zoo.folder)
    for group, name, damaged in (
        ("text_encoders", "l", ("l-half", "l-2bit")),
        ("denoisers", "l", ("l-2bit",)),
        ("decoders", "kl", ("kl-2bit",)),
    ):
        role = group.removesuffix("s")
        for new in damaged:
            source = {"path": str(folder.absolute() / role / new)}
            values[group][new] = {**values[group][name], "source": source}
    for bridge in list(values["bridges"]):
        if bridge["text_encoder"] == "l" and bridge["denoiser"] == "l":
            for encoder, denoiser in (("l-half", "l"), ("l-2bit", "l"), ("l", "l-2bit")):
                added = {**bridge, "text_encoder": encoder, "denoiser": denoiser}
                values["bridges"].append(added)
    return LocatedCatalog(Catalog.model_validate(values), folder)


def _copy(source: Path, target: Path, change: Callable[[Weights, dict[str, Any]], Weights]) -> None:
    target.mkdir(parents=True, exist_ok=True)
    config = json.loads((source / CONFIG).read_text())
    (file,) = source.glob("*.safetensors")
    weights = change(load_file(file), config)
    save_file({k: v.contiguous() for k, v in weights.items()}, target / file.name, {"format": "pt"})
    (target / CONFIG).write_text(json.dumps(config, indent=1))
    for other in source.iterdir():
        if other.name not in (CONFIG, file.name):
            shutil.copy(other, target / other.name)


def _half_the_layers(weights: Weights, config: dict[str, Any]) -> Weights:
    kept = config["num_hidden_layers"] // 2
    config["num_hidden_layers"] = kept

    def stays(name: str) -> bool:
        _, _, rest = name.partition("encoder.layers.")
        return not rest or int(rest.split(".")[0]) < kept

    return {name: value for name, value in weights.items() if stays(name)}


def _in_two_bits(weights: Weights, _: dict[str, Any]) -> Weights:
    """Round the matrices to -2, -1, 0 and 1 times a scale of each output channel."""

    def rounded(value: Tensor) -> Tensor:
        if value.ndim < 2:
            return value
        rows = value.float().flatten(1)
        scale = rows.std(dim=1, keepdim=True).clamp_min(1e-8)
        return (torch.round(rows / scale).clamp(-2, 1) * scale).reshape(value.shape).to(value.dtype)

    return {name: rounded(value) for name, value in weights.items()}


def _absolute(values: Any, folder: Path) -> None:
    """Make all relative paths in nested values absolute, in place."""
    items = values.items() if isinstance(values, dict) else enumerate(values)
    for key, value in list(items):
        if isinstance(value, dict | list):
            _absolute(value, folder)
        elif key in ("path", "prompts", "calibration", "samples", "real_images") and value:
            values[key] = str((folder / value).absolute())
