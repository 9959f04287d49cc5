"""Diffusers folders made from single files, kept in the store."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from sdpack.errors import InputError, SourceError, StoreError
from sdpack.export.single_file.content import OriginalFile, is_denoiser, starting
from sdpack.export.single_file.conversion import (
    UnfitError,
    convert_model,
    write_model,
    write_text_encoder,
)
from sdpack.export.single_file.embeddings import add_embeddings
from sdpack.export.single_file.layout import VAE
from sdpack.export.single_file.names import is_single_file
from sdpack.export.single_file.options import FileOptions
from sdpack.export.single_file.plan import FilePlan, plan_of
from sdpack.export.single_file.vocabulary import write_vocabulary
from sdpack.store.artifacts import RECORD
from sdpack.store.files import explain_io
from sdpack.store.opening import open_store

KIND = "pipeline"  # of artifacts
BYTES = 2  # of a number, in most files
WEIGHTS = ".safetensors"


def folder_of_file(path: Path, options: FileOptions, say: Callable[[str], None]) -> Path:
    """Return the diffusers folder of a model in a single file; converts it the first time.

    The folder is in the store, under a key of all files that it is made from and of the options.

    Args:
        path: a .safetensors or .gguf file in the layout of Stable Diffusion 1, 2, XL or 3, or Flux.
        options: what the file does not tell.
        say: called with a line for everything that was assumed or left out.

    Raises:
        SourceError: it cannot be converted, or a part is missing.
        MissingPackageError: the package that reads GGUF is missing.
        StoreError: the folder cannot be written.
    """
    plan = plan_of(OriginalFile(path), options)
    for line in plan.lines:
        say(line)
    store = open_store()
    if store.find(KIND, plan.inputs) is None:
        store.check_space(_needed_bytes(plan.file), f"converting {path}")
    return store.make(KIND, plan.inputs, lambda folder: write_folder(plan, folder)).folder


def _needed_bytes(file: OriginalFile) -> int:
    numbers = sum(math.prod(shape) for shape in file.shapes.values())
    return max(file.path.stat().st_size, BYTES * numbers)


def write_folder(plan: FilePlan, folder: Path) -> None:
    """Write a pipeline into an empty folder.

    Raises:
        SourceError: a part does not fit its config.
    """
    layout = plan.layout
    layout.write(folder)
    for component, source in plan.linked.items():
        _link_files(source, folder / component)
    for component in plan.spelled:
        assert plan.vocabulary is not None
        write_vocabulary(plan.vocabulary, folder / component)
    try:
        _convert(plan, plan.file, layout.denoiser, is_denoiser, folder)
        if plan.vae_file is not None and plan.vae is not None:
            belongs = starting(*plan.vae) if plan.vae else starting("")
            _convert(plan, plan.vae_file, VAE, belongs, folder)
        for component, prefix in plan.texts.items():
            tensors = plan.file.tensors(starting(prefix))
            write_text_encoder(folder, layout, component, tensors)
    except UnfitError as cause:
        raise SourceError(
            f"{plan.file.path} does not fit {layout.name}: {cause}; say another --base, or give "
            "--with FOLDER, a diffusers folder with its configs"
        ) from cause
    add_embeddings(folder, layout, plan.embeddings)


def _convert(
    plan: FilePlan,
    file: OriginalFile,
    component: str,
    belongs: Callable[[str], bool],
    folder: Path,
) -> None:
    """Convert the denoiser or the VAE."""
    layout = plan.layout
    try:
        converted = convert_model(
            layout.class_name(component), layout.configs[component], file.tensors(belongs)
        )
    except UnfitError as cause:
        raise UnfitError(f"{component} of {file.path}: {cause}") from cause
    write_model(folder / component, converted)


def _link_files(source: Path, target: Path) -> None:
    """Link the weights directly in a folder, so that they are not kept twice; copy other files."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        if path.name.endswith(WEIGHTS):
            (target / path.name).symlink_to(path.absolute())
        elif path.is_file() and path.name != RECORD:
            shutil.copyfile(path, target / path.name)


def converted_beside(
    path: Path, options: FileOptions, written: Path, say: Callable[[str], None]
) -> Path | None:
    """Convert a single file to a folder beside a catalog; None if the path is another model's.

    Args:
        path: the model.
        options: what the file does not tell.
        written: the catalog that is to list the folder.
        say: called with a line for everything that was assumed or left out.

    Raises:
        SdpackError: as in `folder_of_file` and `keep_folder`.
    """
    if not (path.is_file() and is_single_file(path.name)):
        return None
    return keep_folder(folder_of_file(path, options, say), written.absolute().parent / path.stem)


def keep_folder(made: Path, target: Path) -> Path:
    """Copy a folder out of the store, which may remove it; its weights are hard links if possible.

    Raises:
        InputError: another folder is there already.
        StoreError: it cannot be written.
    """
    record = target / RECORD
    if record.is_file() and record.read_bytes() == (made / RECORD).read_bytes():
        return target
    if target.exists():
        raise InputError(f"{target} exists already; remove it, or choose another --out")
    unfinished = target.with_name(f".{target.name}.unfinished")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(made, unfinished, symlinks=True, copy_function=_link_or_copy)
        unfinished.rename(target)
    except OSError as cause:
        raise StoreError(explain_io(cause, target)) from cause
    return target


def _link_or_copy(source: str, target: str) -> None:
    if source.endswith(WEIGHTS):
        with suppress(OSError):
            os.link(source, target, follow_symlinks=False)
            return
    shutil.copy2(source, target)
