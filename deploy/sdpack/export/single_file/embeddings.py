"""Textual inversions (Gal et al. 2022), added to a pipeline's tokenizers and text encoders."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from sdpack.errors import SourceError
from sdpack.export.single_file.layout import TEXT_ENCODER, Layout, tokenizer_of
from sdpack.export.single_file.names import explain_pickle, is_pickle

if TYPE_CHECKING:
    from torch import Tensor

# Keys of a file's tensors for each text encoder, by pipeline; None for a file's only tensor.
ENCODERS: Mapping[str, Mapping[str, str | None]] = {
    "StableDiffusionPipeline": {TEXT_ENCODER: None},
    "StableDiffusionXLPipeline": {TEXT_ENCODER: "clip_l", f"{TEXT_ENCODER}_2": "clip_g"},
}
NAMELESS = ("emb_params",)  # names of tensors that are not the token's


def add_embeddings(folder: Path, layout: Layout, files: Sequence[Path]) -> None:
    """Add textual inversions to a pipeline's folder.

    The token is the one that a file names, or else the file's name without its suffix.

    Args:
        folder: the pipeline's folder.
        layout: its classes and configs.
        files: .safetensors files.

    Raises:
        SourceError: a file is not a textual inversion for this pipeline.
    """
    if not files:
        return
    if layout.pipeline not in ENCODERS:
        raise SourceError(
            f"{files[0]}: textual inversions are supported for Stable Diffusion 1, 2 and XL, not "
            f"for a {layout.pipeline}; leave out --embedding"
        )
    read = [(path, _read(path)) for path in files]
    for component, key in ENCODERS[layout.pipeline].items():
        _add_to_encoder(folder, layout, component, [_one(path, found, key) for path, found in read])


def _read(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    if is_pickle(path.name):
        raise SourceError(explain_pickle(path))
    try:
        return load_file(path)
    except (SafetensorError, OSError) as cause:
        raise SourceError(f"{path} cannot be read ({cause}); restore it") from cause


def _one(path: Path, found: Mapping[str, Tensor], key: str | None) -> tuple[Path, str, Tensor]:
    """Return a file's token and vectors, of shape (number, width) or (width,), for an encoder."""
    if key is not None:
        if key not in found:
            raise SourceError(f"{path} has no {key}, so it is not for this model; leave it out")
        return path, path.stem, found[key]
    if len(found) != 1:
        listed = ", ".join(sorted(found)[:3])
        raise SourceError(f"{path} holds {listed}, so it is not for this model; leave it out")
    ((name, vectors),) = found.items()
    return path, path.stem if name in NAMELESS else name, vectors


def _add_to_encoder(
    folder: Path, layout: Layout, component: str, added: Sequence[tuple[Path, str, Tensor]]
) -> None:
    import transformers
    from diffusers.loaders import TextualInversionLoaderMixin

    class Holder(TextualInversionLoaderMixin):
        """Stands in for a pipeline."""

        hf_device_map = None
        components: Mapping[str, Any] = {}

    model_class = getattr(transformers, layout.class_name(component))
    encoder = model_class.from_pretrained(folder / component, local_files_only=True)
    spelled = folder / tokenizer_of(component)
    tokenizer = transformers.AutoTokenizer.from_pretrained(spelled, local_files_only=True)
    for path, token, vectors in added:
        try:
            Holder().load_textual_inversion(
                {token: vectors}, token=token, tokenizer=tokenizer, text_encoder=encoder
            )
        except (ValueError, RuntimeError) as cause:
            reason = str(cause).splitlines()[0]
            raise SourceError(f"{path} does not fit {component}: {reason}") from cause
    for place, saved in ((folder / component, encoder), (spelled, tokenizer)):
        shutil.rmtree(place)  # its files may be links, which must not be written to
        saved.save_pretrained(place)
