"""The files of a bundle: a pipeline for a device, and the evidence for its choice.

    manifest.json      settings, evidence, and the SHA-256 of every other file that ships
    onnx/              portable graphs in the folders that optimum's pipelines read: text_encoder,
                       unet, vae_decoder, tokenizer, scheduler, model_index.json
    engines/           TensorRT plans, one per graph, if the profile's runtime is TensorRT
    sampler.json       the scheduler as a table; sampler-20.json for 20 steps, sampler-768x512.json
                       if the schedule depends on the image size
    samples.png        images of this mix for the catalog's sample prompts
    ledger.jsonl       every measurement behind the choice; input of `sdpack report`
    contact.png        images of this mix and others, one row each, from the same prompts and noise
    report.html        the report; its charts are also in charts/
    verified.json      memory and time that `verify` last measured, and on which machine

report.html, charts/ and verified.json are written into the finished bundle, do not ship, and have
no checksum.

A bundle contains only data, no code. Every file that ships is checked against its checksum before
it is used.
"""

from __future__ import annotations

from pathlib import Path

from sdpack.documents.manifest import WHOLE
from sdpack.documents.profile import Size, format_size
from sdpack.domain.placement import Role
from sdpack.store.files import unfinished_name

MANIFEST = "manifest.json"
VERIFIED = "verified.json"
SAMPLES = "samples.png"
LEDGER = "ledger.jsonl"
CONTACT_SHEET = "contact.png"
SHEET_GAP = 4  # pixels of white around each image of the contact sheet
REPORT = "report.html"
CHARTS = "charts"
ONNX = "onnx"
ENGINES = "engines"
TOKENIZER = "tokenizer"


def portable_name(role: Role, denoiser_class: str) -> str:
    """Return the folder of a role's portable graph, as optimum's pipelines name it."""
    if role.encodes_text:
        return role.value
    if role is Role.DECODER:
        return "vae_decoder"
    return "unet" if denoiser_class.startswith("UNet") else "transformer"


def tokenizer_name(role: Role) -> str:
    """Return the path of a text encoder's tokenizer, relative to the bundle."""
    return f"{ONNX}/" + role.value.replace(Role.TEXT_ENCODER.value, TOKENIZER)


def sampler_name(size: Size | None = None, steps: int | None = None) -> str:
    """Return the file name of a sampler table.

    Args:
        size: image size, if the schedule depends on it and it is not the bundle's default.
        steps: number of steps, if it is not the bundle's default.
    """
    words = ["sampler"]
    if size is not None:
        words.append(format_size(size))
    if steps is not None:
        words.append(str(steps))
    return "-".join(words) + ".json"


def plan_name(role: Role, graph: str) -> str:
    """Return the path of the TensorRT plan of a graph, relative to the bundle."""
    stem = Path(graph).stem
    piece = "" if stem in WHOLE else f"-{stem}"
    return f"{ENGINES}/{role.value}{piece}.plan"


def ships(name: str) -> bool:
    """Whether a file ships and has a checksum; files written into a finished bundle do not."""
    late = {MANIFEST, VERIFIED, REPORT, *map(unfinished_name, (VERIFIED, REPORT))}
    return name not in late and Path(name).parts[0] != CHARTS
