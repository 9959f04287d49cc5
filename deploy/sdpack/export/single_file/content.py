"""The tensors of a single file, under the names that diffusers' converters know."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from sdpack.errors import MissingPackageError, SourceError
from sdpack.export.single_file.names import explain_pickle, is_pickle

if TYPE_CHECKING:
    from torch import Tensor

Shapes = Mapping[str, tuple[int, ...]]
GGUF = ".gguf"
DENOISER_PREFIX = "model.diffusion_model."
VAE_PREFIXES = ("first_stage_model.", "vae.")
TEXT_PREFIXES = ("cond_stage_model.", "conditioner.", "text_encoders.")
# What the names of a denoiser begin with in files that hold nothing else.
BARE = ("input_blocks.", "joint_blocks.", "double_blocks.")
MARKS = ("v_pred", "ztsnr", "edm_mean")  # empty tensors, or numbers, whose name is the message


@dataclass(frozen=True)
class OriginalFile:
    """A .safetensors or .gguf file.

    Its tensors have the names of whole models: those of a file that holds only a denoiser get the
    prefix that a denoiser has in a whole model.
    """

    path: Path

    @cached_property
    def shapes(self) -> Shapes:
        """The shape of each tensor, from the file's header alone.

        Raises:
            SourceError: the file is a pickle, or damaged.
            MissingPackageError: it is GGUF, and the package that reads it is missing.
        """
        return {self._renamed(name): shape for name, shape in self._stored.items()}

    @property
    def _is_gguf(self) -> bool:
        suffix = self.path.suffix
        return suffix.lower() == GGUF

    @cached_property
    def _stored(self) -> Shapes:
        if is_pickle(self.path.name):
            raise SourceError(explain_pickle(self.path))
        if self._is_gguf:
            return _gguf_shapes(self.path)
        try:
            with safe_open(self.path, "np") as file:
                names = list(file.keys())
                return {name: tuple(file.get_slice(name).get_shape()) for name in names}
        except (SafetensorError, OSError) as cause:
            raise SourceError(f"{self.path} cannot be read ({cause}); restore it") from cause

    @cached_property
    def _is_bare(self) -> bool:
        stored = self._stored
        return _starts(stored, BARE) and not _starts(stored, (DENOISER_PREFIX,))

    def _renamed(self, name: str) -> str:
        kept = name.startswith((*VAE_PREFIXES, *TEXT_PREFIXES)) or name in MARKS
        return name if kept or not self._is_bare else DENOISER_PREFIX + name

    def tensors(self, belongs: Callable[[str], bool]) -> dict[str, Tensor]:
        """Return the tensors whose name belongs; those with 8-bit floats as fp16, which is exact.

        Those of .safetensors files are mapped, not read.

        Raises:
            SourceError: the file is damaged, or quantized in a way that diffusers does not read.
        """
        named = {name: self._renamed(name) for name in self._stored}
        wanted = {name: new for name, new in named.items() if belongs(new)}
        if self._is_gguf:
            return _gguf_tensors(self.path, wanted)
        try:
            with safe_open(self.path, "pt") as file:
                return {new: _plain(file.get_tensor(name)) for name, new in wanted.items()}
        except (SafetensorError, OSError) as cause:
            raise SourceError(f"{self.path} cannot be read ({cause}); restore it") from cause

    def has(self, prefixes: tuple[str, ...]) -> bool:
        """Whether the name of a tensor begins with one of the prefixes."""
        return _starts(self.shapes, prefixes)


def is_denoiser(name: str) -> bool:
    """Whether a tensor belongs to the denoiser."""
    return name.startswith(DENOISER_PREFIX)


def starting(*prefixes: str) -> Callable[[str], bool]:
    """Return a function that tells whether a name begins with one of the prefixes."""
    return lambda name: name.startswith(prefixes)


def empty(shapes: Shapes) -> dict[str, Tensor]:
    """Return tensors of these shapes on the `meta` device, which take no memory."""
    import torch

    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def _starts(names: Iterable[str], prefixes: tuple[str, ...]) -> bool:
    return any(name.startswith(prefixes) for name in names)


def _plain(tensor: Tensor) -> Tensor:
    import torch

    return (
        tensor.to(torch.float16) if tensor.is_floating_point() and tensor.itemsize == 1 else tensor
    )


def _gguf_shapes(path: Path) -> Shapes:
    if importlib.util.find_spec("gguf") is None:
        raise MissingPackageError("gguf", "gguf", f"reading {path}")
    from gguf import GGUFReader

    try:
        read = GGUFReader(path).tensors
    except (OSError, ValueError, IndexError, KeyError) as cause:
        raise SourceError(f"{path} cannot be read ({cause}); restore it") from cause
    return {each.name: tuple(int(side) for side in reversed(each.shape)) for each in read}


def _gguf_tensors(path: Path, wanted: Mapping[str, str]) -> dict[str, Tensor]:
    """Dequantize tensors to fp16, as diffusers does before it computes; others keep their type."""
    import torch
    from diffusers.models.model_loading_utils import load_gguf_checkpoint
    from diffusers.quantizers.gguf.utils import dequantize_gguf_tensor

    try:
        read = load_gguf_checkpoint(path)
    except (OSError, ValueError, IndexError, KeyError) as cause:
        reason = str(cause).splitlines()[0]
        raise SourceError(f"{path} cannot be read ({reason}); give another file") from cause
    found = {}
    for name, new in wanted.items():
        tensor = read.pop(name)
        is_quantized = hasattr(tensor, "quant_type")
        plain = dequantize_gguf_tensor(tensor)
        found[new] = plain.to(torch.float16) if is_quantized else plain
    return found
