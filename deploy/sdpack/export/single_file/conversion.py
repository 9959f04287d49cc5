"""Conversion of parts from original layouts, with diffusers' own functions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdpack.errors import SourceError
from sdpack.export.single_file.content import Shapes
from sdpack.export.single_file.layout import Config, Layout

if TYPE_CHECKING:
    from torch import Tensor

Tensors = Mapping[str, "Tensor"]
MODEL_WEIGHTS = "diffusion_pytorch_model.safetensors"
TEXT_WEIGHTS = "model.safetensors"
T5_CLASS = "T5EncoderModel"
TIED = "encoder.embed_tokens.weight"  # of a T5, the same tensor as its shared.weight
# The projection of the first CLIP of Stable Diffusion 3. diffusers puts the identity in its place,
# as files of the first releases do not have it.
PROJECTION = "text_encoders.clip_l.transformer.text_projection.weight"
FAILURES = (AttributeError, LookupError, RuntimeError, TypeError, ValueError)


class UnfitError(SourceError):
    """Tensors do not have the names or shapes of a config."""


def convert_model(class_name: str, config: Config, tensors: Tensors) -> dict[str, Tensor]:
    """Return a denoiser's or VAE's tensors under diffusers' names, on the device they are on.

    Args:
        class_name: its diffusers class.
        config: its config.
        tensors: its tensors under their original names, or already under diffusers'.

    Raises:
        UnfitError: names or shapes differ from those of the class with this config.
    """
    from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES

    expected = model_shapes(class_name, config)
    if set(tensors) == set(expected):
        converted = dict(tensors)
    else:
        function: Any = SINGLE_FILE_LOADABLE_CLASSES[class_name]["checkpoint_mapping_fn"]
        try:
            converted = function(checkpoint=dict(tensors), config=dict(config))
        except KeyError as cause:
            raise UnfitError(f"it has no {cause.args[0]}") from cause
        except FAILURES as cause:
            reason = (str(cause) or type(cause).__name__).splitlines()[0]
            raise UnfitError(f"diffusers cannot convert it ({reason})") from cause
    _check_fits({name: tuple(tensor.shape) for name, tensor in converted.items()}, expected)
    return converted


def model_shapes(class_name: str, config: Config) -> Shapes:
    """Return the shape of each tensor of a diffusers class with this config."""
    return _shapes_of_config(class_name, json.dumps(config))


@lru_cache
def _shapes_of_config(class_name: str, config: str) -> Shapes:
    import diffusers
    from accelerate import init_empty_weights

    model_class: Any = getattr(diffusers, class_name)
    with init_empty_weights():
        model = model_class.from_config(json.loads(config))
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _check_fits(found: Shapes, expected: Shapes) -> None:
    missing = sorted(expected.keys() - found.keys())
    if missing:
        raise UnfitError(f"it has no {missing[0]}{_more(missing)}")
    extra = sorted(found.keys() - expected.keys())
    if extra:
        raise UnfitError(f"its {extra[0]}{_more(extra)} would be left over")
    for name, shape in expected.items():
        if found[name] != shape:
            raise UnfitError(f"its {name} is {_sides(found[name])}, not {_sides(shape)}")


def _more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def _sides(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "a number"


def write_model(folder: Path, tensors: Tensors) -> None:
    """Write a denoiser's or VAE's tensors into its folder."""
    _save(folder / MODEL_WEIGHTS, tensors)


def write_text_encoder(folder: Path, layout: Layout, component: str, tensors: Tensors) -> None:
    """Convert a text encoder, and write it into a pipeline's folder beside its config.

    Args:
        folder: the pipeline's folder, which holds the configs.
        layout: classes and configs of the pipeline.
        component: name of the text encoder's component.
        tensors: its tensors under their original names.

    Raises:
        UnfitError: a tensor is missing, or has another shape than its config says.
    """
    import transformers

    transformers.logging.disable_progress_bar()
    class_name = layout.class_name(component)
    if class_name == T5_CLASS:
        _save(folder / component / TEXT_WEIGHTS, _convert_t5(folder / component, tensors))
    else:
        _convert_clip(folder, component, class_name, tensors).save_pretrained(folder / component)


def _convert_clip(folder: Path, component: str, class_name: str, tensors: Tensors) -> Any:
    import torch
    import transformers
    from diffusers.loaders.single_file_utils import create_diffusers_clip_model_from_ldm

    dtypes = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    try:
        model = create_diffusers_clip_model_from_ldm(
            getattr(transformers, class_name),
            checkpoint=dict(tensors),
            config=str(folder),
            subfolder=component,
            torch_dtype=dtypes.pop() if len(dtypes) == 1 else torch.float32,
            local_files_only=True,
        )
    except FAILURES as cause:
        reason = (str(cause) or type(cause).__name__).splitlines()[0]
        raise UnfitError(f"diffusers cannot convert its {component} ({reason})") from cause
    if PROJECTION in tensors and hasattr(model, "text_projection"):
        own = tensors[PROJECTION].to(model.text_projection.weight.dtype)
        model.text_projection.weight = torch.nn.Parameter(own, requires_grad=False)
    missing = [name for name, tensor in model.named_parameters() if tensor.device.type == "meta"]
    if missing:
        raise UnfitError(f"its {component} has no {missing[0]}{_more(missing)}")
    return model


def _convert_t5(folder: Path, tensors: Tensors) -> dict[str, Tensor]:
    from accelerate import init_empty_weights
    from diffusers.loaders.single_file_utils import convert_sd3_t5_checkpoint_to_diffusers
    from transformers import T5Config, T5EncoderModel

    converted = convert_sd3_t5_checkpoint_to_diffusers(dict(tensors))
    converted.pop(TIED, None)
    with init_empty_weights():
        model = T5EncoderModel(T5Config.from_pretrained(folder))
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    expected.pop(TIED, None)
    _check_fits({name: tuple(tensor.shape) for name, tensor in converted.items()}, expected)
    return dict(converted)


def _save(path: Path, tensors: Tensors) -> None:
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    own = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(own, path, metadata={"format": "pt"})
