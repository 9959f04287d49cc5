"""Pipelines that draw the same prompts from the same noise in fp32, scored by every judge."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from sdpack.documents.catalog_files import LocatedCatalog, find_catalog
from sdpack.documents.profile import find_profile
from sdpack.domain.arrays import Float64Array
from sdpack.domain.placement import Role
from sdpack.domain.precision import Precision
from sdpack.evaluate.rules import Rules
from sdpack.pack.candidates import Candidates
from sdpack.pack.parallel.graphs import prepare_exports
from sdpack.pack.parallel.local import open_executor
from sdpack.pack.planning.mix import Mix, in_precisions
from sdpack.pack.request import BuildRequest
from sdpack.pack.selection.mix_evaluator import MixEvaluator
from sdpack.pack.toolchain import Toolchain, open_toolchain
from sdpack.store.artifacts import cache_folder
from sdpack.workers.executor import WorkerOptions

from benchmarks.damaged_zoo import damaged_zoo

FIRST_JUDGE = "judge"


@dataclass(frozen=True)
class Side:
    """One pipeline of a pair.

    Attributes:
        parts: the candidate of each role.
        catalog: name or path of its catalog; None for the zoo.
        steps, guidance: None for the catalog's.
    """

    parts: Mapping[Role, str]
    catalog: str | None = None
    steps: int | None = None
    guidance: float | None = None

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Side:
        """Read a side of the table."""
        parts = {Role(key): str(name) for key, name in values.items() if key in list(Role)}
        return cls(parts, values.get("catalog"), values.get("steps"), values.get("guidance"))

    @property
    def settings(self) -> tuple[str | None, int | None, float | None]:
        """What sides have in common that one toolchain can draw."""
        return self.catalog, self.steps, self.guidance

    def __str__(self) -> str:
        words = [*self.parts.values()]
        words += [] if self.steps is None else [f"{self.steps} steps"]
        words += [] if self.guidance is None else [f"guidance {self.guidance:g}"]
        return " + ".join(words)


@dataclass
class SideScores:
    """Draws and scores sides, and opens each catalog once.

    Attributes:
        prompts: the number of prompts.
        listed: the zoo's prompt list; None for the catalog's.
    """

    prompts: int
    console: Console
    stack: ExitStack
    listed: Path | None = None
    _open: dict[Any, tuple[Toolchain, MixEvaluator]] = field(default_factory=dict, init=False)

    @cached_property
    def zoo(self) -> LocatedCatalog:
        """The zoo with damaged parts."""
        zoo = damaged_zoo(cache_folder() / "damaged-zoo")
        if self.listed is None:
            return zoo
        quality = zoo.catalog.quality.model_copy(
            update={"prompts": self.listed, "real_images": None}
        )
        return replace(zoo, catalog=zoo.catalog.model_copy(update={"quality": quality}))

    def of(self, side: Side) -> dict[str, Float64Array]:
        """Return the scores of a side by each judge, float64 (prompts,)."""
        toolchain, evaluator = self._evaluator(side)
        mix = self._mix(side, toolchain)
        prepare_exports(toolchain, mix.variants)
        numbers = range(min(self.prompts, len(evaluator.prompts)))
        found = {FIRST_JUDGE: evaluator.scores_in_fp32([mix], numbers)[0]}
        for name, judge in evaluator.judging.others.items():
            runner, spec = evaluator.runner.judged_by(judge.scorer), evaluator.reference(mix)
            chunks = runner.chunks(numbers)
            found[name] = np.concatenate([runner.scores([spec], chunk)[0] for chunk in chunks])
        return found

    def _evaluator(self, side: Side) -> tuple[Toolchain, MixEvaluator]:
        if side.settings not in self._open:
            located = self.zoo if side.catalog is None else find_catalog(side.catalog)
            if side.guidance is not None:
                sampling = located.catalog.sampling
                sampling = sampling.model_copy(update={"guidance_scale": side.guidance})
                catalog = located.catalog.model_copy(update={"sampling": sampling})
                located = replace(located, catalog=catalog)
            request = BuildRequest(
                find_profile("cpu-2gb"), located, Path("unused"), rules=Rules(most=self.prompts)
            )
            request = replace(request, steps=side.steps)
            candidates = Candidates(request)
            say = self.console.log
            executor = self.stack.enter_context(open_executor(candidates, WorkerOptions(1), say))
            toolchain = self.stack.enter_context(open_toolchain(candidates, say, executor))
            self._open[side.settings] = toolchain, MixEvaluator(toolchain, (), ())
        return self._open[side.settings]

    def _mix(self, side: Side, toolchain: Toolchain) -> Mix:
        catalog = toolchain.context.catalog
        parts = next(each for each in catalog.mixable() if dict(each.names) == dict(side.parts))
        return in_precisions(parts, [Precision.FP32] * len(parts.names))
