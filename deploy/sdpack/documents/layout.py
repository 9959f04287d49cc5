"""Bundles: what a device runs, and the evidence it was chosen by.

    manifest.json      what this is, where each number was seen, SHA-256 of every other file
    onnx/              portable graphs in the folders optimum's pipelines read: text_encoder, unet,
                       vae_decoder, tokenizer, scheduler, model_index.json
    engines/           TensorRT plans, one a graph, where the profile's runtime is TensorRT
    sampler.json       the scheduler as a table; sampler-20.json for 20 steps, sampler-768x512.json
                       where the schedule depends on a picture's size
    samples.png        the catalog's sample prompts through this mix
    ledger.jsonl       every measurement the choice rests on; `sdpack report` draws from it
    contact.png        the same prompts and noise through this mix and others, a row of each
    report.html        what `report` made of that, charts/ the same as pictures
    verified.json      what `verify` saw on the machine it last ran on

The last two are written later, are not part of what ships, and have no checksum.

A bundle is data: it holds nothing that is executed, and every file that ships is checked against
its checksum before it is used.
"""

from __future__ import annotations

from pathlib import Path

from sdpack.documents.manifest import WHOLE
from sdpack.documents.profile import Size, format_size
from sdpack.domain.placement import Role
from sdpack.store.artifacts import unfinished_name

MANIFEST = "manifest.json"
VERIFIED = "verified.json"
SAMPLES = "samples.png"
LEDGER = "ledger.jsonl"
CONTACT_SHEET = "contact.png"
SHEET_GAP = 4  # pixels of white around each of its pictures
REPORT = "report.html"
CHARTS = "charts"
ONNX = "onnx"
ENGINES = "engines"
TOKENIZER = "tokenizer"


def portable_name(role: Role, denoiser_class: str) -> str:
    """The folder of a role's portable graph, as optimum's pipelines name it."""
    if role.encodes_text:
        return role.value
    if role is Role.DECODER:
        return "vae_decoder"
    return "unet" if denoiser_class.startswith("UNet") else "transformer"


def tokenizer_name(role: Role) -> str:
    """The folder of a text encoder's tokenizer in a bundle."""
    return f"{ONNX}/" + role.value.replace(Role.TEXT_ENCODER.value, TOKENIZER)


def sampler_name(size: Size | None = None, steps: int | None = None) -> str:
    """Where a sampler table is in a bundle.

    Args:
        size: where the schedule depends on the size, and this is not the usual one.
        steps: where these are not the bundle's own.
    """
    words = ["sampler"]
    if size is not None:
        words.append(format_size(size))
    if steps is not None:
        words.append(str(steps))
    return "-".join(words) + ".json"


def plan_name(role: Role, graph: str) -> str:
    """Where the TensorRT plan of one of a role's graphs is in a bundle."""
    stem = Path(graph).stem
    piece = "" if stem in WHOLE else f"-{stem}"
    return f"{ENGINES}/{role.value}{piece}.plan"


def ships(name: str) -> bool:
    """Whether a file has a checksum: not so what is written into a finished bundle later."""
    late = {MANIFEST, VERIFIED, REPORT, *map(unfinished_name, (VERIFIED, REPORT))}
    return name not in late and Path(name).parts[0] != CHARTS
