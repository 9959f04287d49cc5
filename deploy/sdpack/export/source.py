"""Local folders of a catalog's sources; hub repositories are fetched at their revision."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from sdpack.documents.source import Source
from sdpack.errors import SourceError
from sdpack.export.model_card import MODEL_CARD
from sdpack.export.pickles import without_pickles
from sdpack.export.pipeline_index import MODEL_INDEX, PipelineIndex, read_index
from sdpack.store.artifacts import cache_folder

# Variants of weights, tried one after the other if a repository has no plain weights.
COPIES = ("fp16", "bf16")
OTHER_WEIGHTS = ("non_ema", "ema")  # variants with other weights, never fetched
FETCHED = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
PICKLE_PATTERNS = ("*.bin",)
METADATA_S = 10.0  # timeout for the hub to list a repository
MODEL_CONFIG = "config.json"  # only models have one; tokenizers and schedulers use other names


def local_folder(source: Source, catalog_folder: Path) -> Path:
    """Return the local folder of a source.

    A hub repository is fetched into the Hugging Face cache at its pinned revision, with only the
    safetensors weights unless pickles are allowed. HF_HUB_OFFLINE and HF_TOKEN are honoured.

    Raises:
        SourceError: it cannot be fetched, or the repository has no such folder.
    """
    folder = catalog_folder / source.path if source.path is not None else _of_hub(source)
    if source.allow_pickle:
        return without_pickles(folder, cache_folder() / "unpickled")
    return folder


def is_here(source: Source, catalog_folder: Path) -> bool:
    """Whether all weights of a source are on this machine."""
    if source.path is not None:
        return (catalog_folder / source.path).exists()
    folder = _snapshot_folder(source) / source.subfolder
    return folder.is_dir() and any(folder.iterdir()) and _has_all_weights(folder, source)


def remote_bytes(source: Source) -> int | None:
    """Return the bytes that `local_folder` would fetch, according to the hub's metadata.

    Returns None if the hub cannot be reached or HF_HUB_OFFLINE is set.
    """
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if source.hub is None or HF_HUB_OFFLINE:
        return None
    try:
        sizes = remote_sizes(source)
    except Exception:  # no network: the client raises the errors of its HTTP library
        return None
    return sum(sizes[name] for name in names_to_fetch(sizes, source))


def remote_sizes(source: Source) -> dict[str, int]:
    """Return the bytes of each file of a repository, by its path in it."""
    from huggingface_hub import HfApi

    assert source.hub is not None
    info = HfApi().model_info(
        source.hub, revision=source.revision, files_metadata=True, timeout=METADATA_S
    )
    return {each.rfilename: each.size or 0 for each in info.siblings or ()}


def names_to_fetch(names: Iterable[str], source: Source) -> list[str]:
    """Return which of a repository's files `local_folder` would fetch."""
    from huggingface_hub.utils._paths import filter_repo_objects

    every, found = list(names), list[str]()
    for variants in _variants():
        allow, ignore = _patterns(source, variants)
        found = list(filter_repo_objects(every, allow_patterns=allow, ignore_patterns=ignore))
        if any(Path(name).suffix in (".safetensors", ".bin") for name in found):
            break
    return found


def _snapshot_folder(source: Source) -> Path:
    """Return the folder of a revision in the hub client's cache."""
    from huggingface_hub.constants import HF_HUB_CACHE

    assert source.hub is not None
    name = f"models--{source.hub.replace('/', '--')}"
    return Path(HF_HUB_CACHE) / name / "snapshots" / str(source.revision)


def pipeline_folder(source: Source) -> Path:
    """Return the local folder of a pipeline; fetches only the used components of a repository.

    Args:
        source: a folder or a hub repository.

    Raises:
        SourceError: it cannot be fetched, or needs components that sdpack does not support.
    """
    if source.path is not None:
        return source.path
    index = pipeline_index(source)
    patterns = [f"{name}/{pattern}" for name in index.used for pattern in FETCHED]
    for variants in _variants():
        folder = snapshot(source, patterns, variants)
        if all(_has_weights(folder / name, source) for name in index.used):
            break
    return folder


def pipeline_index(source: Source) -> PipelineIndex:
    """Return the index of a hub repository's pipeline; fetches only it and the model's card.

    Raises:
        SourceError: it cannot be fetched, or names components that sdpack does not support.
    """
    folder = snapshot(source, [MODEL_INDEX, MODEL_CARD])
    if not (folder / MODEL_INDEX).is_file():
        raise SourceError(
            f"{source} is not a diffusers pipeline: it has no {MODEL_INDEX}; "
            "list its parts in a catalog"
        )
    index = read_index(folder, str(source))
    index.warnings()
    return index


def downloaded_pipeline(source: Source) -> Path | None:
    """Return the local folder of a pipeline if its files are on this machine, else None."""
    if source.path is not None:
        return source.path
    folder = _snapshot_folder(source)
    if not (folder / MODEL_INDEX).is_file():
        return None
    components = [folder / name for name in read_index(folder, str(source)).used]
    is_here = all(part.is_dir() and _has_weights(part, source) for part in components)
    return folder if is_here else None


def _variants() -> Iterator[tuple[str, ...]]:
    """Yield growing sets of variants to fetch, starting with none."""
    for number in range(len(COPIES) + 1):
        yield COPIES[:number]


def _of_hub(source: Source) -> Path:
    for variants in _variants():
        folder = _fetched(source, variants) / source.subfolder
        if _has_weights(folder, source):
            break
    if not folder.is_dir() or not any(folder.iterdir()):
        raise SourceError(f"{source}: the repository has no folder {source.subfolder!r}; check it")
    if not _has_weights(folder, source):
        raise SourceError(
            f"{source} has no weights here: if it was fetched only in part, fetch it again with a "
            "network; if the repository has only pickled weights, which may run any code when "
            "read, allow them with allow_pickle"
        )
    return folder


def _has_weights(folder: Path, source: Source) -> bool:
    """Whether a folder has weights, or needs none because it has no model's config."""
    if not (folder / MODEL_CONFIG).is_file():
        return True
    suffixes = {".safetensors", ".bin"} if source.allow_pickle else {".safetensors"}
    return not suffixes.isdisjoint(path.suffix for path in folder.iterdir())


def _has_all_weights(folder: Path, source: Source) -> bool:
    """Whether no weights would be fetched: those of a variant do not count, nor do some shards."""
    if not (folder / MODEL_CONFIG).is_file():
        return True
    names = [path.name for path in folder.iterdir()]
    plain = [name for name in names if not any(fnmatchcase(name, p) for p in _ignored(()))]
    indices = [folder / name for name in plain if name.endswith(".safetensors.index.json")]
    try:
        shards = {shard for index in indices for shard in _shards(index)}
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        return False  # a damaged index does not tell
    suffixes = (".safetensors", ".bin") if source.allow_pickle else (".safetensors",)
    return shards.issubset(names) and any(name.endswith(suffixes) for name in plain)


def _shards(index: Path) -> set[str]:
    """The files that an index of weights names."""
    return set(json.loads(index.read_text())["weight_map"].values())


def is_hub_id(text: str) -> bool:
    """Whether a text has the form of a hub repository's name."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", text, re.ASCII) is not None


def hub_source(repository: str) -> Source:
    """Pin a hub repository to the current revision of its main branch; offline, to the cached one.

    Raises:
        SourceError: the repository does not exist, is gated, or is neither cached nor reachable.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    with explained(repository, repository):
        try:
            commit = HfApi().model_info(repository).sha
        except (HfHubHTTPError, HFValidationError):
            raise
        except Exception:  # no network: the client raises exceptions of its HTTP library
            commit = _cached_commit(repository)
    if commit is None:
        raise SourceError(
            f"{repository} is not on this machine and the hub cannot be reached (offline, or no "
            "network); fetch it once with a network"
        )
    return Source(hub=repository, revision=commit)


def _cached_commit(repository: str) -> str | None:
    """Return the commit of main at the last fetch, or None."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    reference = folder / "refs" / "main"
    if reference.is_file():
        return reference.read_text().strip()
    snapshots = sorted((folder / "snapshots").glob("*")) if folder.is_dir() else []
    return snapshots[0].name if len(snapshots) == 1 else None


def _fetched(source: Source, variants: tuple[str, ...] = ()) -> Path:
    """The snapshot with the files of a source.

    Args:
        variants: variants of the weights to fetch as well, for a repository that has nothing else.
    """
    allow, _ = _patterns(source, variants)
    return snapshot(source, allow, variants)


def _patterns(source: Source, variants: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Patterns of the names of the files that are fetched, and of those that are not."""
    prefix = f"{source.subfolder}/" if source.subfolder else ""
    wanted = (*FETCHED, *PICKLE_PATTERNS) if source.allow_pickle else FETCHED
    return [prefix + pattern for pattern in wanted], _ignored(variants)


def _ignored(variants: tuple[str, ...]) -> list[str]:
    others = [name for name in (*COPIES, *OTHER_WEIGHTS) if name not in variants]
    return [f"*.{name}{end}" for name in others for end in (".*", "-*")]


def snapshot(source: Source, patterns: list[str], variants: tuple[str, ...] = ()) -> Path:
    """Fetch those files of a hub repository that match a pattern; returns their folder.

    Args:
        variants: variants of the weights to fetch as well.

    Raises:
        SourceError: they cannot be fetched.
    """
    from huggingface_hub import snapshot_download

    assert source.hub is not None
    with explained(str(source), source.hub):
        folder = snapshot_download(
            source.hub,
            revision=source.revision,
            allow_patterns=patterns,
            ignore_patterns=_ignored(variants),
        )
    return Path(folder)


@contextmanager
def explained(name: str, repository: str) -> Iterator[None]:
    """Turn exceptions of the hub's client into a SourceError with a remedy."""
    from huggingface_hub import errors
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    incomplete = getattr(errors, "IncompleteSnapshotError", LocalEntryNotFoundError)
    try:
        yield
    except GatedRepoError as cause:
        raise SourceError(
            f"{name}: accept its licence at huggingface.co/{repository} first, then set HF_TOKEN"
        ) from cause
    except RevisionNotFoundError as cause:
        raise SourceError(f"{name}: there is no such revision; check the catalog") from cause
    except RepositoryNotFoundError as cause:
        raise SourceError(
            f"{name}: there is no such repository, or it is private; set HF_TOKEN for a private one"
        ) from cause
    except incomplete as cause:
        raise SourceError(
            f"{name} is only partly on this machine, and the rest cannot be fetched (offline, or "
            "no network); complete it with a network"
        ) from cause
    except LocalEntryNotFoundError as cause:
        raise SourceError(
            f"{name} is not on this machine and cannot be fetched (offline, or no network); "
            "fetch it once with a network"
        ) from cause
    except Exception as cause:  # the client raises exceptions of its HTTP library
        reason = (str(cause) or type(cause).__name__).splitlines()[0]
        raise SourceError(f"{name} cannot be fetched: {reason}") from cause
