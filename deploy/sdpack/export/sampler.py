"""diffusers' own scheduler, run once on coordinate vectors, gives the sampler table.

The "latents" are the coordinates of a vector in the basis (start, model outputs, noise draws),
so whatever a linear scheduler does to them is the row of coefficients it stands for.
"""

from __future__ import annotations

import copy
import inspect
import json
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from sdpack.documents.conditioning import Family
from sdpack.errors import SchedulerError, SourceError
from sdpack.export.instead import NONLINEAR, UnusableError, way_out
from sdpack.runtime.sampler import SamplerTable

TABLE_TOLERANCE = 1e-4
SCHEDULER_CONFIG = "scheduler_config.json"
# What Stable Diffusion's pipeline sets whatever the scheduler's config says.
AS_STABLE_DIFFUSION = {"steps_offset": 1, "clip_sample": False}
# What schedulers of diffusers raise at settings or numbers of steps they cannot do.
FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


def load_scheduler(folder: Path, family: Family | None = None) -> Any:
    """The diffusers scheduler of a folder with a scheduler_config.json, as a family's pipeline
    runs it.

    Raises:
        SourceError: there is none, or diffusers has no such class.
    """
    import diffusers

    path = folder / SCHEDULER_CONFIG
    try:
        name = json.loads(path.read_text())["_class_name"]
        found = getattr(diffusers, name, None)
        if not (isinstance(found, type) and issubclass(found, diffusers.SchedulerMixin)):
            raise SourceError(f"{path}: diffusers has no scheduler {name!r}; check _class_name")
        made = cast(Any, found).from_pretrained(folder)
        if family is Family.SD:
            known = _settings(made)
            own = {key: value for key, value in AS_STABLE_DIFFUSION.items() if key in known}
            made = cast(Any, found).from_config(made.config, **own)
    except (OSError, *FAILURES) as cause:
        raise SourceError(f"{path} is not a scheduler config ({cause!r}); restore it") from cause
    return made


def scheduler_table(
    folder: Path, family: Family, steps: int, latent_rows: tuple[int, int], patch: int
) -> SamplerTable:
    """The table of the scheduler in a folder, run as diffusers' pipeline of a family runs it.

    Args:
        latent_rows: height and width of a picture's latents.
        patch: side in latent pixels of a denoiser's token.

    Raises:
        SourceError: the folder holds no scheduler.
        SchedulerError: the scheduler is not linear, or cannot do so many steps.
    """
    scheduler = load_scheduler(folder, family)
    settings = run_settings(scheduler, family, steps, latent_rows, patch)
    try:
        return sampler_table(scheduler, steps, settings)
    except SchedulerError as error:
        raise SchedulerError(f"{folder / SCHEDULER_CONFIG}: {error}") from error


def _settings(scheduler: Any) -> Mapping[str, Any]:
    """The keys of a config that a scheduler heeds, and its class's defaults."""
    signature = inspect.signature(type(scheduler).__init__)
    return {name: parameter.default for name, parameter in signature.parameters.items()}


@dataclass(frozen=True)
class RunSettings:
    """What a scheduler's timesteps depend on besides their number.

    Attributes:
        sigmas: noise levels to step through, where the pipeline names them.
        mu: how far they are shifted towards noise, where that depends on the picture's size.
    """

    sigmas: tuple[float, ...] | None = None
    mu: float | None = None

    def given(self, steps: int) -> dict[str, Any]:
        """The arguments of `set_timesteps`."""
        more = {} if self.mu is None else {"mu": self.mu}
        if self.sigmas is None:
            return {"num_inference_steps": steps, **more}
        return {"sigmas": list(self.sigmas), **more}


PLAIN_RUN = RunSettings()


def run_settings(
    scheduler: Any, family: Family, steps: int, latent_rows: tuple[int, int], patch: int
) -> RunSettings:
    """How diffusers' pipeline of a family sets its scheduler's timesteps.

    Args:
        latent_rows: height and width of a picture's latents.
        patch: side in latent pixels of a denoiser's token.
    """
    config = scheduler.config
    shifted = family in (Family.FLUX, Family.SD3) and config.get("use_dynamic_shifting")
    tokens = (latent_rows[0] // patch) * (latent_rows[1] // patch)
    mu = _shift(config, tokens, family) if shifted else None
    named = family is Family.FLUX and not config.get("use_flow_sigmas")
    sigmas = tuple(float(s) for s in np.linspace(1.0, 1 / steps, steps)) if named else None
    return RunSettings(sigmas, mu)


def _shift(config: Any, tokens: int, family: Family) -> float:
    """Linear in the number of a picture's tokens, as the scheduler's config has it."""
    few, many = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low = config.get("base_shift", 0.5)
    high = config.get("max_shift", 1.16 if family is Family.SD3 else 1.15)
    return float(low + (high - low) * (tokens - few) / (many - few))


def sampler_table(scheduler: Any, steps: int, settings: RunSettings = PLAIN_RUN) -> SamplerTable:
    """The table of a diffusers scheduler at `steps` steps; the scheduler itself is left as it was.

    Raises:
        SchedulerError: it is not linear, cannot do so many steps, or draws noise in a way of its
            own; says which setting or scheduler to take instead, if one of those tried works.
    """
    try:
        return _checked_table(scheduler, steps, settings)
    except UnusableError as error:
        name = type(scheduler).__name__

        def works(other: Any, count: int = steps) -> bool:
            again = RunSettings(settings.sigmas if count == steps else None, settings.mu)
            try:
                _checked_table(other, count, again)
            except UnusableError:
                return False
            return True

        instead = way_out(scheduler, _settings(scheduler), steps, works)
        about = f" with {instead.setting}" if instead.setting else ""
        raise SchedulerError(f"{name}{about} {error}; {instead.advice}") from error


def _checked_table(scheduler: Any, steps: int, settings: RunSettings) -> SamplerTable:
    """The table, once it is seen to be what the scheduler does.

    Raises:
        UnusableError: it is not.
    """
    name = type(scheduler).__name__
    if "Inverse" in name:
        raise UnusableError("turns pictures into noise")
    heeded = _settings(scheduler)
    on = [key for key in NONLINEAR if key in heeded and getattr(scheduler.config, key, False)]
    if on:
        raise UnusableError("is not linear in the denoiser's prediction")
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table = _table(scheduler, name, steps, settings)
            numbers = (table.timesteps, table.inputs, table.samples)
            if not all(np.isfinite(array).all() for array in numbers):
                raise UnusableError(f"at {steps} steps gives numbers that are not finite")
            worst = _disagreement(scheduler, table, settings)
    except FAILURES as cause:
        raise UnusableError(f"cannot be run at {steps} steps ({_words(cause)})") from cause
    if not worst < TABLE_TOLERANCE:
        raise UnusableError(
            f"at {steps} steps is not linear, or draws noise of its own (its table is off by "
            f"{worst:.1e})"
        )
    return table


def _words(cause: Exception) -> str:
    lines = str(cause).splitlines()
    return f"{type(cause).__name__}: {lines[0]}" if lines else type(cause).__name__


def _prepared(scheduler: Any, steps: int, settings: RunSettings) -> tuple[Any, list[Any]]:
    """A copy of a scheduler that is set to begin, and its timesteps.

    It is told where it begins, as the pipelines of SDXL and Flux do. Otherwise it looks its first
    timestep up, and where noise levels are so close that two share a timestep it skips one of them
    and runs out of levels: on a cosine schedule with Karras's noise levels, for instance.
    """
    fresh = copy.deepcopy(scheduler)
    fresh.set_timesteps(**settings.given(steps))
    if hasattr(fresh, "set_begin_index"):
        fresh.set_begin_index(0)
    return fresh, list(fresh.timesteps)


def _table(scheduler: Any, name: str, steps: int, settings: RunSettings) -> SamplerTable:
    """Run on coordinates, with room for one draw a call; unused draws are cut off."""
    fresh, timesteps = _prepared(scheduler, steps, settings)
    calls = len(timesteps)
    width = 1 + 2 * calls

    def coordinate(number: int) -> Tensor:
        vector = torch.zeros(1, 1, 1, width, dtype=torch.float64)
        vector[..., number] = 1
        return vector

    drawn = 0

    def draw() -> Tensor:
        nonlocal drawn
        drawn += 1
        return coordinate(calls + drawn)

    outputs = [coordinate(1 + k) for k in range(calls)]
    inputs, samples = _run(fresh, timesteps, coordinate(0), lambda k, _: outputs[k], draw)
    used = 1 + calls + drawn
    return SamplerTable(
        name,
        steps,
        np.array([float(t) for t in timesteps]),
        np.stack([x.numpy().reshape(-1)[:used] for x in inputs]).astype(np.float64),
        np.stack([x.numpy().reshape(-1)[:used] for x in samples]).astype(np.float64),
        drawn,
    )


def _run(
    scheduler: Any,
    timesteps: list[Any],
    start: Tensor,
    model: Callable[[int, Tensor], Tensor],
    draw: Callable[[], Tensor],
) -> tuple[list[Tensor], list[Tensor]]:
    """Every model input and every sample of one run."""
    latents = start * float(getattr(scheduler, "init_noise_sigma", 1.0))
    # Those that take `eta` get 0, as pipelines give it; TCD's own default is another.
    takes_eta = "eta" in inspect.signature(scheduler.step).parameters
    more = {"eta": 0.0} if takes_eta else {}
    inputs, samples = [], []
    with _noise_from(draw):
        for k, timestep in enumerate(timesteps):
            given = latents
            if hasattr(scheduler, "scale_model_input"):
                given = scheduler.scale_model_input(latents, timestep)
            latents = scheduler.step(model(k, given), timestep, latents, return_dict=False, **more)[
                0
            ]
            inputs.append(given)
            samples.append(latents)
    return inputs, samples


def _disagreement(scheduler: Any, table: SamplerTable, settings: RunSettings) -> float:
    """Worst error of the table against the scheduler itself, on random model outputs.

    The outputs are ten times as large as a model's, so that clipping would show; the error is
    relative to the sample.
    """
    fresh, timesteps = _prepared(scheduler, table.steps, settings)
    g = torch.Generator().manual_seed(0)
    basis = 10 * torch.randn(table.inputs.shape[1], 1, 4, 8, 8, generator=g, dtype=torch.float64)
    rest = iter(basis[1 + table.calls :])
    inputs, samples = _run(
        fresh, timesteps, basis[0], lambda k, _: basis[1 + k], lambda: next(rest)
    )
    errors: list[float] = []
    for rows, seen in ((table.inputs, inputs), (table.samples, samples)):
        for row, true in zip(torch.from_numpy(rows), seen, strict=True):
            error = (torch.tensordot(row, basis, 1) - true).abs().max()
            errors.append(float(error / true.abs().max().clamp_min(1)))
    return float(np.max(errors))  # NaN if one is, which Python's max may pass over


@contextmanager
def _noise_from(draw: Callable[[], Tensor]) -> Iterator[None]:
    """Whatever noise a scheduler of diffusers asks for comes from `draw`."""
    modules = [
        module
        for name, module in sys.modules.items()
        if name.startswith("diffusers.schedulers.") and "randn_tensor" in vars(module)
    ]

    def drawn(*_: Any, **__: Any) -> Tensor:
        return draw()

    with ExitStack() as patches:
        for module in modules:
            patches.enter_context(mock.patch.object(module, "randn_tensor", drawn))
        yield
