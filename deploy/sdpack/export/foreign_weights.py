"""What files of weights are that sdpack does not read, and what to do with them.

Files are recognized by their names, and .safetensors files by the keys in their headers. Pickles
are not opened.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

SAFETENSORS = ".safetensors"
PICKLES = (".bin", ".ckpt", ".pt", ".pth")
LFS_POINTER = b"version https://git-lfs"
EMBEDDING = "a textual inversion embedding"
ADD_EMBEDDING = (
    "add it to the pipeline with diffusers' load_textual_inversion, save the pipeline with "
    "save_pretrained, and give that folder"
)
LIST_LORA = "list it under loras in a catalog, which `sdpack catalog from` writes"
UNQUANTIZED = "give the .safetensors weights that it was made from; sdpack quantizes them itself"
GGUF = "give a denoiser's file itself as --model, or the .safetensors weights it was made from"
SAFE = "give the .safetensors weights of the same model"
ONLY_TEXT = "sdpack draws from texts alone: leave it out"
CONVERTER = "from_single_file and save_pretrained of its diffusers class"
CONVERT = "convert it with diffusers' {}.from_single_file and save_pretrained"
SHOWN = 3  # files that a message names
_CONVERTED = re.compile("pytorch_model")  # what `sdpack catalog convert` reads


@dataclass(frozen=True)
class Foreign:
    """A kind of weights that sdpack does not read where they are.

    Attributes:
        kind: what they are, with an article.
        remedy: what to do with them.
    """

    kind: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.remedy}"


POINTER = Foreign("a pointer of Git LFS, not the file itself", "download it with `git lfs pull`")
# By the name of a file; the first match counts.
_NAMES: tuple[tuple[re.Pattern[str], Foreign], ...] = tuple(
    (re.compile(pattern), Foreign(kind, remedy))
    for pattern, kind, remedy in (
        (r".*\.gguf", "GGUF weights, which are quantized already", GGUF),
        (r".*\.onnx(_data|\.data)?", "an ONNX graph", SAFE),
        (r"openvino_.*", "weights for OpenVINO", SAFE),
        (r".*\.msgpack", "weights for Flax", SAFE),
        (r".*\.h5", "weights for TensorFlow", SAFE),
        (r"learned_embeds.*\.(bin|pt)", f"{EMBEDDING} in a pickle", ADD_EMBEDDING),
    )
)
# By the keys of a .safetensors file; the first match counts.
_KEYS: tuple[tuple[re.Pattern[str], Foreign], ...] = tuple(
    (re.compile(pattern, re.MULTILINE), Foreign(kind, remedy))
    for pattern, kind, remedy in (
        (r"\.hada_w", "a LoHa", LIST_LORA),
        (r"\.lokr_w", "a LoKr", LIST_LORA),
        (r"lora[._](up|down|A|B|linear)|\.lora_(up|down|A|B)", "a LoRA", LIST_LORA),
        (r"^(control_model\.|controlnet_|input_hint_block\.)", "a ControlNet", ONLY_TEXT),
        (r"^(ip_adapter|image_proj)\.", "an IP-Adapter", ONLY_TEXT),
        (
            r"^(model\.diffusion_model|cond_stage_model|conditioner)\.",
            "a model in the original layout",
            CONVERT.format("StableDiffusionPipeline"),
        ),
        (
            r"^(first_stage_model\.|decoder\.(up\.\d|mid\.attn_))",
            "a VAE in the original layout",
            CONVERT.format("AutoencoderKL"),
        ),
        (
            r"^(input_blocks|double_blocks|joint_blocks)\.",
            "a denoiser in the original layout",
            f"convert it with {CONVERTER}",
        ),
        (r"\.(absmax|quant_map|quant_state)\b", "weights quantized by bitsandbytes", UNQUANTIZED),
    )
)
_EMBEDDING_KEYS = {"emb_params", "clip_l", "clip_g"}  # others have one tensor, named by its token


def recognized(path: Path) -> Foreign | None:
    """Say what a file of weights is; None if it is not of a known kind."""
    named = next((foreign for pattern, foreign in _NAMES if pattern.fullmatch(path.name)), None)
    if named is not None or path.suffix != SAFETENSORS:
        return named
    if is_pointer(path):
        return POINTER
    try:
        with safe_open(path, "np") as weights:
            names = list(weights.keys())
            shapes = {name: tuple(weights.get_slice(name).get_shape()) for name in names}
    except (OSError, SafetensorError):
        return None
    return by_keys(shapes) or _embedding(shapes)


def by_keys(keys: Iterable[str]) -> Foreign | None:
    """Say what weights with these keys are; None if they are not of a known kind."""
    text = "\n".join(keys)
    return next((foreign for pattern, foreign in _KEYS if pattern.search(text)), None)


def _embedding(shapes: Mapping[str, tuple[int, ...]]) -> Foreign | None:
    """Recognize a textual inversion by its few tensors, one for each text encoder."""
    is_token = len(shapes) == 1 and "." not in next(iter(shapes))
    is_known = set(shapes) <= _EMBEDDING_KEYS or is_token
    shape = next(iter(shapes.values()), ())
    if not is_known or len(shape) not in (1, 2):
        return None
    count = shape[0] if len(shape) == 2 else 1
    return Foreign(f"{EMBEDDING} of {count} vector{'s' if count > 1 else ''}", ADD_EMBEDDING)


def is_pointer(path: Path) -> bool:
    """Whether Git LFS has left a pointer in place of a file."""
    try:
        with path.open("rb") as file:
            return file.read(len(LFS_POINTER)) == LFS_POINTER
    except OSError:
        return False


def loose_weights(folder: Path) -> Iterator[tuple[Path, Foreign | None]]:
    """Yield the files of weights in a folder, each with what it is; None if that is not known."""
    for path in sorted(path for path in folder.glob("*") if path.is_file()):
        found = recognized(path)
        if found is not None or path.suffix in (*PICKLES, SAFETENSORS):
            yield path, found


def held_weights(folder: Path) -> str:
    """Name the files of weights in a folder, and what they are; "" if there are none."""
    held = [path.name + (f" ({kind})" if kind else "") for path, kind in loose_weights(folder)]
    more = f" and {len(held) - SHOWN} more" if len(held) > SHOWN else ""
    return ", ".join(held[:SHOWN]) + more


def explain_no_config(folder: Path, config: str) -> str:
    """Describe a part's folder that is missing, or has no config, and the remedy.

    Args:
        folder: the part's folder.
        config: the name of the config.
    """
    if folder.is_dir():
        held, said = held_weights(folder), f"{folder} has no {config}"
    else:
        held, said = held_weights(folder.parent), f"there is no folder {folder}"
    where = "it" if folder.is_dir() else str(folder.parent)
    more = f"; {where} holds {held}" if held else ""
    return f"{said}{more}; restore the part, which has a {config} beside its weights"


def explain_no_weights(folder: Path, names: Sequence[str], variants: Sequence[str]) -> str:
    """Describe the files in a part's folder that has no weights sdpack reads, and the remedy.

    Args:
        folder: the part's folder.
        names: names of files of weights that are read.
        variants: names of their variants that are read.
    """
    wanted, found = " or ".join(names), dict(loose_weights(folder))
    for path, kind in found.items():
        if kind is not None:
            return f"{folder} holds {path.name}, {kind}"
    unread = [path.name for path in found if path.suffix == SAFETENSORS]
    if unread:
        more = f" and {len(unread) - 1} more" if len(unread) > 1 else ""
        return (
            f"{folder} holds {unread[0]}{more}, which is not read: weights must be named "
            f"{wanted}, be several files with an index beside them, or be one of the variants "
            f"{', '.join(variants)}; rename or restore them"
        )
    for path in found:
        remedy = "`sdpack catalog convert`" if _CONVERTED.search(path.name) else CONVERTER
        return (
            f"{folder} holds its weights only as a pickle ({path.name}), which may run any code "
            f"when it is read; convert it with {remedy} if you trust its source, or choose a "
            "revision with .safetensors"
        )
    return f"{folder} holds no .safetensors weights ({wanted}); restore them"
