"""Where each part of a pipeline comes from: a single file, a file beside it, or a folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from sdpack.errors import SourceError
from sdpack.export.pipeline_index import CONFIG
from sdpack.export.single_file.content import VAE_PREFIXES, OriginalFile
from sdpack.export.single_file.layout import (
    VAE,
    Layout,
    folder_layout,
    read_config,
    tokenizer_of,
)
from sdpack.export.single_file.layout_choice import choose_layout, with_prediction
from sdpack.export.single_file.options import FileOptions
from sdpack.export.single_file.recognition import check_whole, count_averages
from sdpack.export.single_file.vocabulary import HOW_TO_INSTALL, find_vocabulary
from sdpack.store.artifacts import digest, file_sha256, files_digest

REVISION = 1  # of what conversion does; a change converts files again
# Prefixes of each text encoder's tensors, by pipeline.
TEXTS: Mapping[str, tuple[str, ...]] = {
    "StableDiffusionPipeline": ("cond_stage_model.",),
    "StableDiffusionXLPipeline": ("conditioner.embedders.0.", "conditioner.embedders.1."),
    "StableDiffusion3Pipeline": (
        "text_encoders.clip_l.",
        "text_encoders.clip_g.",
        "text_encoders.t5xxl.",
    ),
    "FluxPipeline": ("text_encoders.clip_l.", "text_encoders.t5xxl."),
}
OPTIONAL = {"StableDiffusion3Pipeline": "text_encoder_3"}  # its T5
CLIP_TOKENIZER = "CLIPTokenizer"
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "spiece.model")


@dataclass(frozen=True)
class FilePlan:
    """Where each part of a pipeline comes from.

    Attributes:
        file: the single file.
        layout: classes and configs of the pipeline, without the configs of linked components.
        texts: prefixes of the tensors of text encoders that are converted, by component.
        vae: the prefixes of the VAE's tensors, if it is converted; none for all tensors.
        vae_file: the file that the VAE is converted from.
        linked: folders whose files become components as they are.
        vocabulary: the file that CLIP's tokenizers are made from.
        spelled: components that are made from it.
        embeddings: textual inversions to add.
        lines: what was assumed or left out.
        missing: components that are nowhere.
    """

    file: OriginalFile
    layout: Layout
    texts: Mapping[str, str] = field(default_factory=dict)
    vae: tuple[str, ...] | None = None
    vae_file: OriginalFile | None = None
    linked: Mapping[str, Path] = field(default_factory=dict)
    vocabulary: Path | None = None
    spelled: tuple[str, ...] = ()
    embeddings: tuple[Path, ...] = ()
    lines: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @cached_property
    def inputs(self) -> Mapping[str, Any]:
        """Everything that the converted folder depends on, as JSON values."""
        import diffusers

        files = [self.file.path, *self.embeddings]
        files += [self.vae_file.path] if self.vae_file else []
        files += [self.vocabulary] if self.vocabulary else []
        return {
            "revision": REVISION,
            "diffusers": diffusers.__version__,
            "layout": digest({"index": self.layout.index, "configs": self.layout.configs}),
            "files": [[path.suffix, file_sha256(path)] for path in files],
            "embeddings": [path.stem for path in self.embeddings],
            "parts": [self.texts, self.vae, self.spelled],
            "linked": {name: files_digest(folder) for name, folder in self.linked.items()},
        }


def plan_of(file: OriginalFile, options: FileOptions) -> FilePlan:
    """Decide where each part of a pipeline comes from; reads only headers and configs.

    Raises:
        SourceError: the file is something else than a whole model or its denoiser, or a part is
            missing; names it, and how to give it.
        MissingPackageError: the package that reads GGUF is missing.
    """
    absent = [path for path in options.files() if not path.exists()]
    if absent:
        raise SourceError(f"{absent[0]}: there is no such file or folder; check it")
    check_whole(file)
    chosen = choose_layout(file, options)
    layout, words = with_prediction(file, chosen, options.prediction)
    if layout.pipeline not in TEXTS:
        raise SourceError(f"{file.path}: a {layout.pipeline} has no single file; give its folder")
    about = "; ".join(text for text in (str(chosen), words) if text)
    lines = [f"{file.path}: {about}"]
    averages = count_averages(file.shapes)
    if averages:
        lines.append(f"{file.path}: {averages} averages of the training (EMA) are left out")
    plan = FilePlan(file, layout, embeddings=options.embeddings, lines=tuple(lines))
    plan = _with_text_encoders(_with_vae(plan, options), options.folder)
    plan = _with_tokenizers(plan, options.folder)
    if plan.missing:
        raise SourceError(_explain_missing(plan, options.folder))
    return plan


def _explain_missing(plan: FilePlan, folder: Path | None) -> str:
    """Name all missing parts, and how to give them, in one line."""
    names = plan.missing
    where = "" if folder is None else f", as does {folder}"
    more = "; or --vae FILE" if VAE in names else ""
    if any(_is_clip_tokenizer(plan.layout, name) for name in names):
        more += f"; CLIP's tokenizer also comes with `{HOW_TO_INSTALL}`"
    return (
        f"{plan.file.path} lacks {', '.join(names)}{where}; give --with FOLDER, a diffusers folder "
        f"like {plan.layout.name} that has {'them' if len(names) > 1 else 'it'}{more}"
    )


def _is_clip_tokenizer(layout: Layout, component: str) -> bool:
    """Whether a component is a CLIP's tokenizer; classes end in Fast in some indexes."""
    return layout.class_name(component).startswith(CLIP_TOKENIZER)


def _with_vae(plan: FilePlan, options: FileOptions) -> FilePlan:
    given, own = options.vae, [prefix for prefix in VAE_PREFIXES if plan.file.has((prefix,))]
    if given is not None and given.is_dir():
        if not _is_model(given):
            raise SourceError(f"{given} has no {CONFIG} with .safetensors weights; give a VAE")
        return _linked(plan, VAE, given, read_config(given / CONFIG).get("_class_name"))
    if given is not None:
        beside = OriginalFile(given)
        prefixes = tuple(prefix for prefix in VAE_PREFIXES if beside.has((prefix,)))
        return replace(plan, vae=prefixes, vae_file=beside)
    if own:
        return replace(plan, vae=tuple(own), vae_file=plan.file)
    return _from_folder(plan, VAE, options.folder)


def _with_text_encoders(plan: FilePlan, folder: Path | None) -> FilePlan:
    pipeline = plan.layout.pipeline
    encoders, prefixes = plan.layout.text_encoders, TEXTS[plan.layout.pipeline]
    for component, prefix in zip(encoders, prefixes, strict=False):
        if plan.file.has((prefix,)):
            plan = replace(plan, texts={**plan.texts, component: prefix})
        elif OPTIONAL.get(pipeline) == component and not _has(folder, component):
            line = f"{plan.file.path}: {component} is left out, as the file does not hold it"
            lines = (*plan.lines, f"{line}; --with FOLDER adds it")
            plan = replace(plan, layout=plan.layout.without(component), lines=lines)
        else:
            plan = _from_folder(plan, component, folder)
    unused = [prefix for prefix in prefixes[len(encoders) :] if plan.file.has((prefix,))]
    words = "is left out, as the layout has no such text encoder"
    more = [f"{plan.file.path}: {prefix}* {words}" for prefix in unused]
    return replace(plan, lines=(*plan.lines, *more))


def _with_tokenizers(plan: FilePlan, folder: Path | None) -> FilePlan:
    for component in map(tokenizer_of, plan.layout.text_encoders):
        places = [place for place in (folder, plan.file.path.parent) if place is not None]
        found = [p / component for p in places if _has_tokenizer(p / component)]
        if found:
            plan = _linked(plan, component, found[0])
            continue
        vocabulary = find_vocabulary()
        if vocabulary is not None and _is_clip_tokenizer(plan.layout, component):
            plan = replace(plan, vocabulary=vocabulary, spelled=(*plan.spelled, component))
        else:
            plan = replace(plan, missing=(*plan.missing, component))
    return plan


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in TOKENIZER_FILES)


def _has(folder: Path | None, component: str) -> bool:
    """Whether a folder has a model with weights; one with configs alone lacks it."""
    return folder is not None and _is_model(folder / component)


def _is_model(folder: Path) -> bool:
    return (folder / CONFIG).is_file() and any(folder.glob("*.safetensors"))


def _from_folder(plan: FilePlan, component: str, folder: Path | None) -> FilePlan:
    """Take a part that the file lacks from the folder, if it has it."""
    if folder is None or not _has(folder, component):
        return replace(plan, missing=(*plan.missing, component))
    index = folder_layout(folder).index
    return _linked(plan, component, folder / component, index.get(component, [None, None])[1])


def _linked(
    plan: FilePlan, component: str, folder: Path, class_name: str | None = None
) -> FilePlan:
    layout = plan.layout.having(component, {}, class_name)
    configs = {name: config for name, config in layout.configs.items() if name != component}
    linked = {**plan.linked, component: folder}
    return replace(plan, layout=replace(layout, configs=configs), linked=linked)
