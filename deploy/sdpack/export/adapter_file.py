"""LoRA files of several programs as lists of layers, read from their headers alone.

Supports LoRA (Hu et al. 2021) in the key formats of kohya's scripts, LyCORIS, diffusers and PEFT,
with DoRA's magnitudes (Liu et al. 2024), LyCORIS's middle convolutions and PEFT's biases, and LoHa
and LoKr as LyCORIS and PEFT write them. Any other key is an error, because ignoring part of a file
would change the images.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from sdpack.errors import SourceError
from sdpack.export.foreign_weights import LIST_LORA, PICKLES, recognized
from sdpack.store.artifacts import digest, file_sha256

SUFFIX = ".safetensors"
PEFT_CONFIG = "adapter_config.json"
DIFFUSERS_CONFIG = "lora_adapter_metadata"  # key in a file's header, from diffusers 0.34 on
NAMED = 4  # number of keys listed in a message


class AdapterTensor(StrEnum):
    """The purpose of a tensor in its layer.

    MAGNITUDE is PEFT's, with one value per output. DORA_SCALE is LyCORIS's, with one value per
    output or per input, depending on its shape.
    """

    DOWN = "down"
    UP = "up"
    MID = "mid"
    ALPHA = "alpha"
    BIAS = "bias"
    MAGNITUDE = "magnitude"
    DORA_SCALE = "dora_scale"
    HADA_W1_A = "hada_w1_a"
    HADA_W1_B = "hada_w1_b"
    HADA_W2_A = "hada_w2_a"
    HADA_W2_B = "hada_w2_b"
    HADA_T1 = "hada_t1"
    HADA_T2 = "hada_t2"
    LOKR_W1 = "lokr_w1"
    LOKR_W1_A = "lokr_w1_a"
    LOKR_W1_B = "lokr_w1_b"
    LOKR_W2 = "lokr_w2"
    LOKR_W2_A = "lokr_w2_a"
    LOKR_W2_B = "lokr_w2_b"
    LOKR_T2 = "lokr_t2"


_LORA = frozenset({AdapterTensor.DOWN, AdapterTensor.UP, AdapterTensor.MID, AdapterTensor.BIAS})
_LOHA = frozenset(piece for piece in AdapterTensor if piece.startswith("hada_"))
_LOKR = frozenset(piece for piece in AdapterTensor if piece.startswith("lokr_"))
_CORES = frozenset({AdapterTensor.HADA_T1, AdapterTensor.HADA_T2})
# Each factor of a LoKr is one matrix, or the product of two.
_LOKR_FACTORS = (
    (AdapterTensor.LOKR_W1, {AdapterTensor.LOKR_W1_A, AdapterTensor.LOKR_W1_B}),
    (AdapterTensor.LOKR_W2, {AdapterTensor.LOKR_W2_A, AdapterTensor.LOKR_W2_B}),
)

_SPELLINGS: tuple[tuple[re.Pattern[str], AdapterTensor], ...] = tuple(
    (re.compile(f"(?P<layer>.+){pattern}"), piece)
    for pattern, piece in (
        (r"(?<=_lora[12])\.down\.weight", AdapterTensor.DOWN),
        (r"(?<=_lora[12])\.up\.weight", AdapterTensor.UP),
        (r"(\.lora_down|\.lora_A(\.default)?|[._]lora\.down|\.lora_linear_layer\.down)\.weight",
         AdapterTensor.DOWN),
        (r"(\.lora_up|\.lora_B(\.default)?|[._]lora\.up|\.lora_linear_layer\.up)\.weight",
         AdapterTensor.UP),
        (r"\.lora_mid\.weight", AdapterTensor.MID),
        (r"([._]lora|\.lora_linear_layer)?\.alpha", AdapterTensor.ALPHA),
        (r"\.lora_B(\.default)?\.bias", AdapterTensor.BIAS),
        (r"\.lora_magnitude_vector(\.default)?(\.weight)?", AdapterTensor.MAGNITUDE),
        (r"\.dora_scale", AdapterTensor.DORA_SCALE),
        *((rf"\.{piece}(\.default)?", piece) for piece in (*_LOHA, *_LOKR)),
    )
)  # fmt: skip

_EMBEDDINGS = "textual inversion embeddings"
# Unsupported contents, by patterns of their keys; the first match names the kind.
_KINDS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), kind)
    for pattern, kind in (
        (r"\.hada_[wt]", "LoHa weights"),
        (r"\.lokr_[wt]", "LoKr weights"),
        (r"\.b?oft_|\.oft_blocks|\.oft_diag|\.rescale$", "OFT weights"),
        (r"\.[ab][12]\.weight$|\.bm\.weight$", "GLoRA weights"),
        (r"\.on_input$|\.ia3_l", "IA3 weights"),
        (r"vera_lambda|vera_[AB]", "VeRA weights"),
        (r"lora_embedding_[AB]", "LoRA weights of an embedding table"),
        (r"^bundle_emb\.|^emb_params$|^clip_[lg]$|string_to_param", _EMBEDDINGS),
        (r"^lora_controlnet$|(query|key)_norm\.scale$", "weights of a control LoRA"),
        (r"\.diff(_b)?$|\.set_weight$", "full weight differences"),
        (r"\.[wb]_norm$|norm\d?\.(weight|bias)$", "weights of normalization layers"),
        (r"modules_to_save", "whole layers trained beside the LoRA"),
        (r"\.scalar$", "LyCORIS's learned scales"),
    )
)
_UNKNOWN = "keys that do not belong to a LoRA"

# The prefix of a layer's name, and the component it then belongs to; ANY_COMPONENT is the one that
# lists the file.
ANY_COMPONENT, DENOISER = "", "denoiser"
_COMPONENTS: tuple[tuple[str, str], ...] = (
    ("lora_unet_", DENOISER),
    ("lora_transformer_", DENOISER),
    ("diffusion_model.", DENOISER),
    ("lora_te_", "text_encoder"),
    ("lora_te1_", "text_encoder"),
    ("lora_te2_", "text_encoder_2"),
    ("lora_te3_", "text_encoder_3"),
    ("unet.", "unet"),
    ("transformer.", "transformer"),
    ("text_encoder.", "text_encoder"),
    ("text_encoder_2.", "text_encoder_2"),
    ("text_encoder_3.", "text_encoder_3"),
    ("base_model.model.", ANY_COMPONENT),
    ("lycoris_", ANY_COMPONENT),
)


@dataclass(frozen=True)
class AdapterLayer:
    """The tensors of one layer.

    Attributes:
        name: common prefix of their keys.
        keys: the tensors' keys in the file.
    """

    name: str
    keys: Mapping[AdapterTensor, str]

    @property
    def component(self) -> str:
        """The model it is for: ANY_COMPONENT, DENOISER or diffusers' name of a component."""
        return self._begins[1]

    @property
    def path(self) -> str:
        """Its name without the prefix of the component."""
        return self.name.removeprefix(self._begins[0])

    @property
    def _begins(self) -> tuple[str, str]:
        return next(
            (pair for pair in _COMPONENTS if self.name.startswith(pair[0])), ("", ANY_COMPONENT)
        )


@dataclass(frozen=True)
class AdapterFile:
    """A LoRA file without other contents.

    Attributes:
        config: PEFT's LoraConfig; its keys have component prefixes if the file has several.
    """

    path: Path
    layers: tuple[AdapterLayer, ...]
    config: Mapping[str, Any] | None = None

    def settings(self, component: str) -> Mapping[str, Any] | None:
        """PEFT's settings for one component; None where the file has none."""
        if self.config is None or component == ANY_COMPONENT:
            return self.config
        start = f"{component}."
        return {k.removeprefix(start): v for k, v in self.config.items() if k.startswith(start)}

    @property
    def components(self) -> list[str]:
        """The components it has weights for, in the file's order."""
        return list(dict.fromkeys(layer.component for layer in self.layers))

    def keys(self, components: Iterable[str]) -> list[str]:
        """Return all keys of these components."""
        names = set(components)
        return [
            key for layer in self.layers if layer.component in names for key in layer.keys.values()
        ]


def adapter_path(source: Path) -> Path:
    """Return the LoRA file that a catalog names: a file, or the only one in a folder.

    Raises:
        SourceError: there is none, or more than one.
    """
    if source.is_file():
        return source
    files = sorted(source.glob(f"*{SUFFIX}"))
    if len(files) != 1:
        names = ", ".join(path.name for path in files) or "none"
        raise SourceError(f"{source}: expected one .safetensors LoRA file, found {names}")
    return files[0]


def adapter_content(source: Path) -> str:
    """Return one hash of a LoRA's weights and of PEFT's settings beside them."""
    path = adapter_path(source)
    settings = _peft_config(path)
    return digest(
        {
            "weights": file_sha256(path),
            "settings": file_sha256(settings) if settings.is_file() else None,
        }
    )


def read_adapter(source: Path) -> AdapterFile:
    """Read the layers of a LoRA file from its header.

    Raises:
        SourceError: the file is damaged, a layer is incomplete, or a key is not part of a LoRA;
            names it.
    """
    path = adapter_path(source)
    if path.suffix in PICKLES:
        raise SourceError(
            f"{path} is a pickle, which may run any code when it is read; give the LoRA as {SUFFIX}"
        )
    try:
        with safe_open(path, "np") as weights:
            keys, header = list(weights.keys()), weights.metadata() or {}
    except (OSError, SafetensorError) as cause:
        raise SourceError(f"{path} cannot be read as safetensors ({cause}); restore it") from cause
    keys_by_layer: dict[str, dict[AdapterTensor, str]] = {}
    unsupported = []
    for key in keys:
        name, piece = _split(key)
        if piece is None:
            unsupported.append(key)
        else:
            keys_by_layer.setdefault(name, {})[piece] = key
    _refuse_unsupported(path, unsupported)
    layers = tuple(AdapterLayer(name, pieces) for name, pieces in keys_by_layer.items())
    _refuse_incomplete(path, layers)
    if not layers:
        raise SourceError(f"{path} holds no LoRA weights; give another file")
    return AdapterFile(path, layers, _settings(path, header))


def layers_of(keys: Iterable[str]) -> list[AdapterLayer]:
    """Group keys that are known to be a LoRA's into layers."""
    keys_by_layer: dict[str, dict[AdapterTensor, str]] = {}
    for key in keys:
        name, piece = _split(key)
        if piece is not None:
            keys_by_layer.setdefault(name, {})[piece] = key
    return [AdapterLayer(name, pieces) for name, pieces in keys_by_layer.items()]


def named(keys: Iterable[str]) -> str:
    """List the first few keys, and the number of the others."""
    every = list(keys)
    more = f" and {len(every) - NAMED} more" if len(every) > NAMED else ""
    return ", ".join(every[:NAMED]) + more


def _split(key: str) -> tuple[str, AdapterTensor | None]:
    """Split a key into its layer's name and its purpose; None if it is not part of a LoRA."""
    for pattern, piece in _SPELLINGS:
        match = pattern.fullmatch(key)
        if match is not None:
            return match["layer"], piece
    return key, None


def _refuse_unsupported(path: Path, keys: list[str]) -> None:
    if not keys:
        return
    kinds: dict[str, list[str]] = {}
    is_ia3 = any(key.endswith(".on_input") for key in keys)
    for key in keys:
        kind = next((kind for pattern, kind in _KINDS if pattern.search(key)), _UNKNOWN)
        if is_ia3 and kind == _UNKNOWN and key.endswith(".weight"):
            kind = "IA3 weights"
        kinds.setdefault(kind, []).append(key)
    foreign = recognized(path) if kinds.keys() <= {_UNKNOWN, _EMBEDDINGS} else None
    if foreign is not None and foreign.remedy != LIST_LORA:
        raise SourceError(f"{path} is not a LoRA, but {foreign}")
    contents = "; ".join(f"{kind} ({named(those)})" for kind, those in kinds.items())
    raise SourceError(
        f"{path} holds {contents}; sdpack merges only LoRA, DoRA, LoHa and LoKr: merge this file "
        "into the checkpoint with the program it was trained with, and give that checkpoint"
    )


def _refuse_incomplete(path: Path, layers: Iterable[AdapterLayer]) -> None:
    for layer in layers:
        present = frozenset(layer.keys)
        kinds = sum(bool(present & kind) for kind in (_LORA, _LOHA, _LOKR))
        twice = any(whole in present and present & pair for whole, pair in _LOKR_FACTORS)
        if kinds > 1 or twice:
            raise SourceError(
                f"{path} holds {named(layer.keys.values())}, which are of two kinds of adapter; "
                "restore the file"
            )
        lacking = _lacking(present)
        if lacking:
            raise SourceError(
                f"{path} holds {named(layer.keys.values())} without the layer's "
                f"{' and '.join(sorted(lacking))} weights; restore the file"
            )


def _lacking(present: frozenset[AdapterTensor]) -> set[AdapterTensor]:
    """Return the tensors that a layer lacks."""
    if present & _LOHA:
        return set(_LOHA - present if present & _CORES else _LOHA - _CORES - present)
    if present & _LOKR:
        pairs = [pair - present for whole, pair in _LOKR_FACTORS if whole not in present]
        return set().union(*pairs)
    return {AdapterTensor.DOWN, AdapterTensor.UP} - present


def _peft_config(path: Path) -> Path:
    return path.parent / PEFT_CONFIG


def _settings(path: Path, header: Mapping[str, str]) -> Mapping[str, Any] | None:
    """Read PEFT's settings: from the file's header (diffusers) or a file beside it (PEFT)."""
    beside = _peft_config(path)
    try:
        if DIFFUSERS_CONFIG in header:
            return dict(json.loads(header[DIFFUSERS_CONFIG]))
        if beside.is_file():
            return dict(json.loads(beside.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as cause:
        raise SourceError(
            f"{path}: its settings ({DIFFUSERS_CONFIG} or {PEFT_CONFIG}) cannot be read "
            f"({cause}); restore them"
        ) from cause
    return None
