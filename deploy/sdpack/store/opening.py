"""Opens the store that the environment describes."""

from __future__ import annotations

import os

from sdpack.errors import InputError, StoreError
from sdpack.store.artifacts import Store, cache_folder
from sdpack.store.limit import CacheLimit
from sdpack.store.shared import SharedStore
from sdpack.units import parse_bytes

SHARED_VARIABLE = "SDPACK_STORE"
LIMIT_VARIABLE = "SDPACK_CACHE_LIMIT"
STORE_FOLDER = "store"


def shared_url() -> str | None:
    """Return $SDPACK_STORE, the address of a shared store, or None."""
    return os.environ.get(SHARED_VARIABLE) or None


def open_store(url: str | None = None) -> Store:
    """Open the store of this user, in front of a shared one if there is an address of it.

    $SDPACK_CACHE_LIMIT limits the size of this user's; what is removed is in the shared one.

    Args:
        url: the address of the shared store; None for $SDPACK_STORE.

    Raises:
        StoreError: the address or the limit is wrong, or there is a limit without an address.
        MissingPackageError: the package for this kind of address is not installed.
    """
    folder, url = cache_folder() / STORE_FOLDER, url or shared_url()
    text = os.environ.get(LIMIT_VARIABLE)
    if url is None:
        if text:
            raise StoreError(
                f"{LIMIT_VARIABLE} limits the cache in front of a shared store; set "
                f"{SHARED_VARIABLE} as well, or use `sdpack cache gc`"
            )
        return Store(folder)
    return Store(folder, SharedStore(url), _limit(text, url) if text else None)


def _limit(text: str, url: str) -> CacheLimit:
    try:
        most = parse_bytes(text)
    except InputError as cause:
        raise StoreError(f"{LIMIT_VARIABLE}: {cause}") from cause
    return CacheLimit(cache_folder() / STORE_FOLDER, most, url)
