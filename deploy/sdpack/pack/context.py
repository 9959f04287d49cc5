"""What every step of a build shares: the request, the store, the ledger and the progress."""

from __future__ import annotations

from dataclasses import dataclass

from sdpack.documents.catalog import Catalog
from sdpack.documents.profile import Profile
from sdpack.domain.precision import Runtime
from sdpack.pack.request import BuildRequest
from sdpack.progress import Say
from sdpack.quantization.schemes import ABILITIES, Abilities
from sdpack.store.artifacts import Store
from sdpack.store.ledger import Ledger


@dataclass(frozen=True)
class BuildContext:
    """What every step of a build shares.

    Attributes:
        store: keeps the files that are made.
        ledger: keeps the figures that are measured.
        say: called with a line on what is being done.
    """

    request: BuildRequest
    store: Store
    ledger: Ledger
    say: Say = lambda _: None

    @property
    def profile(self) -> Profile:
        """That of the request."""
        return self.request.profile

    @property
    def runtime(self) -> Runtime:
        """That of the profile."""
        return self.request.profile.runtime

    @property
    def catalog(self) -> Catalog:
        """That of the request."""
        return self.request.located.catalog

    @property
    def abilities(self) -> Abilities:
        """What the runtime keeps packed while it runs."""
        return ABILITIES[self.runtime]
