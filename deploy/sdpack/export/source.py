"""Where a catalog's source lies on this machine; hub repositories are fetched at their revision."""

from __future__ import annotations

from pathlib import Path

from sdpack.catalog import Source
from sdpack.errors import SourceError

COPIES = ("*.fp16.*", "*.non_ema.*", "*.fp16-*", "*.non_ema-*")  # of weights fetched anyway
FETCHED = ("*.json", "*.safetensors", "*.txt", "*.model")


def local_folder(source: Source, catalog_folder: Path) -> Path:
    """The folder of a source's files.

    A hub repository is fetched into the Hugging Face cache at its pinned revision, weights as
    safetensors alone; HF_HUB_OFFLINE and HF_TOKEN are honoured.

    Raises:
        SourceError: it cannot be had, or the repository has no such folder.
    """
    if source.path is not None:
        return catalog_folder / source.path
    folder = _fetched(source) / source.subfolder
    if not folder.is_dir() or not any(folder.iterdir()):
        raise SourceError(f"{source}: the repository has no folder {source.subfolder!r}; check it")
    return folder


def _fetched(source: Source) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    prefix = f"{source.subfolder}/" if source.subfolder else ""
    assert source.hub is not None
    try:
        found = snapshot_download(
            source.hub,
            revision=source.revision,
            allow_patterns=[prefix + pattern for pattern in FETCHED],
            ignore_patterns=[prefix + pattern for pattern in COPIES],
        )
    except GatedRepoError as cause:
        raise SourceError(
            f"{source}: its licence must be accepted at huggingface.co/{source.hub} first; then "
            "set HF_TOKEN"
        ) from cause
    except RevisionNotFoundError as cause:
        raise SourceError(f"{source}: there is no such revision; check the catalog") from cause
    except RepositoryNotFoundError as cause:
        raise SourceError(
            f"{source}: there is no such repository, or it is private; set HF_TOKEN for a private "
            "one"
        ) from cause
    except LocalEntryNotFoundError as cause:
        raise SourceError(
            f"{source} is not on this machine and cannot be fetched (offline, or no network); "
            "fetch it once with a network"
        ) from cause
    except (HfHubHTTPError, HFValidationError, OSError) as cause:
        reason = (str(cause) or type(cause).__name__).splitlines()[0]
        raise SourceError(f"{source} cannot be fetched: {reason}") from cause
    return Path(found)
