"""The files of a bundle: graphs, plans, tokenizers, sampler tables, images."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from sdpack.documents.bundle import write_bundle
from sdpack.documents.conditioning import Family
from sdpack.documents.layout import (
    CONTACT_SHEET,
    ENGINES,
    LEDGER,
    ONNX,
    SAMPLES,
    sampler_name,
    tokenizer_name,
)
from sdpack.documents.manifest import Manifest
from sdpack.documents.record import BuildRecord
from sdpack.domain.placement import Role
from sdpack.domain.tiles import STEM_FILE, TAIL_FILE
from sdpack.engines.tensorrt_builder import PLAN_FILE
from sdpack.pack.bundling.winner import Winner
from sdpack.pack.planning.mix import Variant
from sdpack.pack.recording.kept import Kept
from sdpack.pack.variants.graph_files import SLICED_FILE, SPLIT_FILE
from sdpack.runtime.pipeline import Pictures
from sdpack.version import versions

PIPELINES = {
    Family.SD: "StableDiffusionPipeline",
    Family.SDXL: "StableDiffusionXLPipeline",
    Family.SD3: "StableDiffusion3Pipeline",
    Family.PIXART: "PixArtSigmaPipeline",
    Family.FLUX: "FluxPipeline",
    Family.CHROMA: "ChromaPipeline",
    Family.FLUX2: "Flux2KleinPipeline",
    Family.Z_IMAGE: "ZImagePipeline",
    Family.SANA: "SanaPipeline",
    Family.LUMINA2: "Lumina2Pipeline",
    Family.QWEN_IMAGE: "QwenImagePipeline",
    Family.OVIS_IMAGE: "OvisImagePipeline",
}


@dataclass(frozen=True)
class BundleImages:
    """The images that ship with a bundle, each one sheet: uint8 (H, W, 3).

    Attributes:
        samples: the catalog's sample prompts.
        contact_sheet: the same prompts drawn by several mixes, one row for each.
    """

    samples: Pictures
    contact_sheet: Pictures


@dataclass(frozen=True)
class BundleFiles:
    """Writes the bundle of a winner."""

    winner: Winner
    images: BundleImages
    record: Kept[BuildRecord]

    def write(self, manifest: Manifest, finish: Callable[[Path], None] | None = None) -> Manifest:
        """Write the bundle into the request's folder; returns its manifest.

        Args:
            finish: see `write_bundle`.
        """
        request = self.winner.request
        return write_bundle(request.out, manifest, self._fill, finish)

    def _fill(self, folder: Path) -> None:
        winner, toolchain = self.winner, self.winner.toolchain
        for variant in winner.mix.variants:
            self._write_part(folder, variant)
            if variant.role.encodes_text:
                tokenizer = toolchain.tokenizers.folder(variant.candidate)
                shutil.copytree(tokenizer, folder / tokenizer_name(variant.role))
        shutil.copytree(winner.scheduler(), folder / ONNX / "scheduler")
        (folder / ONNX / "model_index.json").write_text(self._index())
        self._write_samplers(folder)
        Image.fromarray(self.images.samples).save(folder / SAMPLES, optimize=True)
        self.record.write(folder / LEDGER)
        Image.fromarray(self.images.contact_sheet).save(folder / CONTACT_SHEET, optimize=True)

    def _write_part(self, folder: Path, variant: Variant) -> None:
        toolchain, pieces = self.winner.toolchain, self.winner.pieces(variant)
        target = folder / self.winner.portable(variant.role)
        target.mkdir(parents=True)
        graph, store = toolchain.variants.built(variant).artifact, toolchain.context.store
        store.check(graph)
        unused = {STEM_FILE, TAIL_FILE, SPLIT_FILE, SLICED_FILE} - {piece.file for piece in pieces}
        for name in set(graph.files) - unused:
            shutil.copyfile(graph.path(name), target / name)
        checkpoint = toolchain.candidates.checkpoint(variant.role, variant.candidate)
        shutil.copyfile(checkpoint.folder / "config.json", target / "config.json")
        for piece in pieces:
            plan = self.winner.engine(variant, piece).plan
            if plan is not None:
                (folder / ENGINES).mkdir(exist_ok=True)
                compiled = toolchain.pieces.plan_artifact(variant, piece)
                store.check(compiled)
                shutil.copyfile(compiled.path(PLAN_FILE), folder / plan)

    def _write_samplers(self, folder: Path) -> None:
        """A table for each number of steps, and more where a schedule depends on the size."""
        toolchain, denoiser = self.winner.toolchain, self.winner.denoiser
        rows = toolchain.candidates.latent_sizes(Role.DENOISER, denoiser)
        sizes = toolchain.request.sizes
        for steps in (None, *self.winner.other_steps):
            count = steps or self.winner.steps
            usual = toolchain.samplers.of(denoiser, steps=count).to_json()
            (folder / sampler_name(steps=steps)).write_text(json.dumps(usual) + "\n")
            for size, latents in zip(sizes, rows, strict=True):
                table = toolchain.samplers.of(denoiser, latents, count).to_json()
                if table != usual:
                    (folder / sampler_name(size, steps)).write_text(json.dumps(table) + "\n")

    def _index(self) -> str:
        """model_index.json: the class of each part, which optimum's pipelines read first."""
        winner = self.winner
        config = json.loads((winner.scheduler() / "scheduler_config.json").read_text())
        family = winner.candidates.conditioning(winner.denoiser).family
        index: dict[str, Any] = {
            "_class_name": PIPELINES[family],
            "_diffusers_version": versions(("diffusers",))["diffusers"],
            "scheduler": ["diffusers", config["_class_name"]],
        }
        if family is Family.SD:
            index |= {
                "feature_extractor": [None, None],
                "requires_safety_checker": False,
                "safety_checker": [None, None],
            }
        for variant in winner.mix.variants:
            index |= self._index_entries(variant)
        return json.dumps(index, indent=1, sort_keys=True) + "\n"

    def _index_entries(self, variant: Variant) -> dict[str, list[str]]:
        role, candidates = variant.role, self.winner.candidates
        library = "transformers" if role.encodes_text else "diffusers"
        name = Path(self.winner.portable(role)).name.removesuffix("_decoder")
        entries = {name: [library, candidates.checkpoint(role, variant.candidate).class_name]}
        if role.encodes_text:
            tokenizer = Path(tokenizer_name(role)).name
            entries[tokenizer] = ["transformers", "PreTrainedTokenizerFast"]
        return entries
