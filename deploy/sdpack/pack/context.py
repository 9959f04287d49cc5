"""The context that all steps of a build share: request, store, ledger and progress."""

from __future__ import annotations

from dataclasses import dataclass

from sdpack.documents.catalog import Catalog
from sdpack.documents.profile import Profile
from sdpack.domain.precision import Precision, Runtime
from sdpack.pack.request import BuildRequest
from sdpack.progress import Say
from sdpack.quantization.schemes import ABILITIES, Abilities
from sdpack.store.artifacts import Store
from sdpack.store.ledger import Ledger


@dataclass(frozen=True)
class BuildContext:
    """The context that all steps of a build share.

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
        """The profile of the request."""
        return self.request.profile

    @property
    def runtime(self) -> Runtime:
        """The runtime of the profile."""
        return self.request.runtime

    @property
    def catalog(self) -> Catalog:
        """The catalog of the request."""
        return self.request.catalog

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """The precisions to try."""
        return self.request.precisions

    @property
    def abilities(self) -> Abilities:
        """The schemes that the runtime keeps packed in memory."""
        return ABILITIES[self.runtime]
