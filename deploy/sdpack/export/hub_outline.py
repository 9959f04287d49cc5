"""Outlines of pipelines on the hub: the configs and the shapes of the tensors, not the weights.

A safetensors file begins with a header that gives the shape of every tensor. The hub's client reads
these headers alone, so that a pipeline of many gigabytes can be planned after fetching some hundred
kilobytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sdpack.documents.source import Source
from sdpack.errors import SourceError
from sdpack.export.pipeline_index import CONFIG
from sdpack.export.source import (
    downloaded_pipeline,
    explained,
    names_to_fetch,
    pipeline_folder,
    pipeline_index,
    remote_sizes,
    snapshot,
)

Shapes = Mapping[str, tuple[int, ...]]
"""The shape of each tensor."""
_WEIGHTS = re.compile(r"(diffusion_pytorch_)?model(\.\w+)?(-\d+-of-\d+)?(\.\w+)?\.safetensors")


@dataclass(frozen=True)
class PipelineFiles:
    """The files of a pipeline, as far as they are on this machine.

    Attributes:
        folder: its files on this machine, at least the configs of its models.
        shapes: by component, the shapes of tensors whose weights are not on this machine.
    """

    folder: Path
    shapes: Mapping[str, Shapes]


def pipeline_files(source: Source, download: bool) -> PipelineFiles:
    """Return the files of a pipeline.

    Args:
        source: a folder or a hub repository.
        download: whether to fetch the weights too, if they are missing.

    Raises:
        SourceError: files cannot be fetched, or the pipeline needs components that sdpack does not
            support.
    """
    folder = pipeline_folder(source) if download else downloaded_pipeline(source)
    return _outline(source) if folder is None else PipelineFiles(folder, {})


def _outline(source: Source) -> PipelineFiles:
    """Fetch configs, and the headers of weights."""
    components = pipeline_index(source).used
    folder = snapshot(source, [f"{name}/{CONFIG}" for name in components])
    with explained(str(source), str(source.hub)):
        names = list(remote_sizes(source))
    shapes = {
        component: _shapes(source, names, component)
        for component in components
        if (folder / component / CONFIG).is_file()
    }
    return PipelineFiles(folder, shapes)


def _shapes(source: Source, names: Iterable[str], component: str) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a component's tensors, from the headers of its files.

    Raises:
        SourceError: it has no safetensors files, or their headers cannot be read.
    """
    from huggingface_hub import HfApi

    assert source.hub is not None
    files = names_to_fetch(names, source.model_copy(update={"subfolder": component}))
    weights = [name for name in files if _WEIGHTS.fullmatch(Path(name).name)]
    if not weights:
        raise SourceError(
            f"{source} has no .safetensors weights in {component}/; choose a revision that has"
        )
    found: dict[str, tuple[int, ...]] = {}
    with explained(str(source), source.hub):
        for name in weights:
            header = HfApi().parse_safetensors_file_metadata(
                source.hub, name, revision=source.revision
            )
            found |= {key: tuple(tensor.shape) for key, tensor in header.tensors.items()}
    return found
