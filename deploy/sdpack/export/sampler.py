"""Sampler tables, computed by running diffusers' own schedulers once on coordinate vectors.

The "latents" are coordinates in the basis (starting noise, model outputs, noise draws). A linear
scheduler turns them into the coefficients of each model input and sample.
"""

from __future__ import annotations

import copy
import inspect
import json
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from sdpack.documents.conditioning import Family
from sdpack.errors import SchedulerError, SourceError
from sdpack.export.instead import NONLINEAR, OTHER_SCHEDULERS, UnusableError, way_out
from sdpack.runtime.sampler import SamplerTable

# Families whose pipelines shift the schedule with the image size, or set the noise levels.
SHIFTING = frozenset(
    {
        Family.FLUX,
        Family.SD3,
        Family.CHROMA,
        Family.FLUX2,
        Family.Z_IMAGE,
        Family.QWEN_IMAGE,
        Family.OVIS_IMAGE,
    }
)
SETTING_SIGMAS = (SHIFTING - {Family.SD3}) | {Family.LUMINA2}
TABLE_TOLERANCE = 1e-4
SCHEDULER_CONFIG = "scheduler_config.json"
# What a family's pipeline sets whatever the scheduler's config says. SANA-Sprint's divides the
# latents by sigma_data again.
AS_FAMILY: Mapping[Family, Mapping[str, object]] = {
    Family.SD: {"steps_offset": 1, "clip_sample": False},
    Family.SANA: {"sigma_data": 1.0},
}
ANGLES = "SCMScheduler"  # its last timestep is the end, not a call
# Exceptions that diffusers' schedulers raise for unsupported settings or numbers of steps.
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
    """Load the diffusers scheduler from a folder, with the settings of a family's pipeline.

    Raises:
        SourceError: scheduler_config.json is missing or damaged, or diffusers has no such class.
    """
    import diffusers

    path = folder / SCHEDULER_CONFIG
    try:
        name = json.loads(path.read_text())["_class_name"]
        kind = getattr(diffusers, name, None)
        lacking = getattr(kind, "_backends", ())  # of a class whose packages are not installed
        if "torchsde" in lacking:
            raise SourceError(
                f"{path}: {name} draws its noise with torchsde, which sdpack does not support; "
                f"choose another scheduler, such as {OTHER_SCHEDULERS[0]}"
            )
        if not (isinstance(kind, type) and issubclass(kind, diffusers.SchedulerMixin)):
            raise SourceError(f"{path}: diffusers has no scheduler {name!r}; check _class_name")
        scheduler = cast(Any, kind).from_pretrained(folder)
        own = AS_FAMILY.get(family, {}) if family else {}
        if own:
            settings = _settings(scheduler)
            known = {key: value for key, value in own.items() if key in settings}
            scheduler = cast(Any, kind).from_config(scheduler.config, **known)
    except FileNotFoundError as cause:
        raise SourceError(f"{path} is missing; restore it") from cause
    except (OSError, *FAILURES) as cause:
        raise SourceError(f"{path} is not a scheduler config ({cause!r}); restore it") from cause
    return scheduler


def scheduler_table(
    folder: Path, family: Family, steps: int, latent_rows: tuple[int, int], patch: int
) -> SamplerTable:
    """Return the table of a scheduler, run as in the diffusers pipeline of a family.

    Args:
        folder: folder with a scheduler_config.json.
        family: family of the denoiser.
        steps: number of denoising steps.
        latent_rows: height and width of an image's latents.
        patch: side of a denoiser's token, in latent pixels.

    Raises:
        SourceError: the folder has no valid scheduler.
        SchedulerError: the scheduler is not linear, or does not support this number of steps.
    """
    scheduler = load_scheduler(folder, family)
    settings = run_settings(scheduler, family, steps, latent_rows, patch)
    try:
        return sampler_table(scheduler, steps, settings)
    except SchedulerError as error:
        raise SchedulerError(f"{folder / SCHEDULER_CONFIG}: {error}") from error


def _settings(scheduler: Any) -> Mapping[str, Any]:
    """Return the settings of a scheduler's class, with their defaults."""
    signature = inspect.signature(type(scheduler).__init__)
    return {name: parameter.default for name, parameter in signature.parameters.items()}


@dataclass(frozen=True)
class RunSettings:
    """Arguments of a scheduler's `set_timesteps`, apart from the number of steps.

    Attributes:
        sigmas: noise levels, if the pipeline sets them.
        mu: shift of the schedule towards noise, if it depends on the image size.
        middle: whether SANA-Sprint's scheduler sets the time in the middle, as in runs of two
            steps.
    """

    sigmas: tuple[float, ...] | None = None
    mu: float | None = None
    middle: bool = True

    def given(self, steps: int) -> dict[str, Any]:
        """Return the arguments of `set_timesteps`."""
        more: dict[str, Any] = {} if self.mu is None else {"mu": self.mu}
        if not self.middle:
            more["intermediate_timesteps"] = None
        if self.sigmas is None:
            return {"num_inference_steps": steps, **more}
        return {"sigmas": list(self.sigmas), **more}


PLAIN_RUN = RunSettings()


def run_settings(
    scheduler: Any, family: Family, steps: int, latent_rows: tuple[int, int], patch: int
) -> RunSettings:
    """Return the arguments with which a family's diffusers pipeline sets the timesteps.

    Args:
        scheduler: a diffusers scheduler.
        family: family of the denoiser.
        steps: number of denoising steps.
        latent_rows: height and width of an image's latents.
        patch: side of a denoiser's token, in latent pixels.
    """
    config = scheduler.config
    shifted = family in SHIFTING and config.get("use_dynamic_shifting")
    tokens = (latent_rows[0] // patch) * (latent_rows[1] // patch)
    mu = _shift(config, tokens, family, steps) if shifted else None
    sets_sigmas = family in SETTING_SIGMAS and not config.get("use_flow_sigmas")
    sigmas = tuple(float(s) for s in np.linspace(1.0, 1 / steps, steps)) if sets_sigmas else None
    is_angle = type(scheduler).__name__ == ANGLES
    return RunSettings(sigmas, mu, middle=not is_angle or steps == 2)


def _shift(config: Any, tokens: int, family: Family, steps: int) -> float:
    """Return the shift, which is linear in the number of an image's tokens.

    FLUX.2's pipeline has fixed lines for 10 and for 200 steps, and interpolates between them.
    """
    if family is Family.FLUX2:
        from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu

        return float(compute_empirical_mu(tokens, steps))
    few, many = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low = config.get("base_shift", 0.5)
    high = config.get("max_shift", 1.16 if family is Family.SD3 else 1.15)
    return float(low + (high - low) * (tokens - few) / (many - few))


def sampler_table(scheduler: Any, steps: int, settings: RunSettings = PLAIN_RUN) -> SamplerTable:
    """The table of a diffusers scheduler at `steps` steps; the scheduler itself is left as it was.

    Raises:
        SchedulerError: the scheduler is not linear, does not support this number of steps, or draws
            noise in an unsupported way; names another setting or scheduler that works, if any.
    """
    try:
        return _checked_table(scheduler, steps, settings)
    except UnusableError as error:
        name = type(scheduler).__name__

        def works(other: Any, count: int = steps) -> bool:
            same = replace(settings, sigmas=settings.sigmas if count == steps else None)
            try:
                _checked_table(other, count, same)
            except UnusableError:
                return False
            return True

        instead = way_out(scheduler, _settings(scheduler), steps, works)
        setting = f" with {instead.setting}" if instead.setting else ""
        raise SchedulerError(f"{name}{setting} {error}; {instead.advice}") from error


def _checked_table(scheduler: Any, steps: int, settings: RunSettings) -> SamplerTable:
    """Return the table after comparing it with the scheduler on random model outputs.

    Raises:
        UnusableError: they differ, or the scheduler cannot be run.
    """
    name = type(scheduler).__name__
    if "Inverse" in name:
        raise UnusableError("turns images into noise")
    known = _settings(scheduler)
    if any(key in known and getattr(scheduler.config, key, False) for key in NONLINEAR):
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
            f"at {steps} steps is not linear, or draws its own noise (its table differs by "
            f"{worst:.1e})"
        )
    return table


def _words(cause: Exception) -> str:
    lines = str(cause).splitlines()
    return f"{type(cause).__name__}: {lines[0]}" if lines else type(cause).__name__


def _prepared(scheduler: Any, steps: int, settings: RunSettings) -> tuple[Any, list[Any]]:
    """Return a copy of a scheduler that is ready to run, and its timesteps.

    The first index is set explicitly, as in the pipelines of SDXL and Flux. Otherwise the scheduler
    looks it up by timestep. If two noise levels share a timestep, as on a cosine schedule with
    Karras sigmas, it then skips one and runs out of levels.
    """
    fresh = copy.deepcopy(scheduler)
    fresh.set_timesteps(**settings.given(steps))
    if hasattr(fresh, "set_begin_index"):
        fresh.set_begin_index(0)
    timesteps = list(fresh.timesteps)
    return fresh, timesteps[:-1] if type(fresh).__name__ == ANGLES else timesteps


def _table(scheduler: Any, name: str, steps: int, settings: RunSettings) -> SamplerTable:
    """Run a scheduler on coordinates, with room for one noise draw per call; drop unused draws."""
    fresh, timesteps = _prepared(scheduler, steps, settings)
    calls = len(timesteps)
    width = 1 + 2 * calls

    def coordinate(number: int) -> Tensor:
        vector = torch.zeros(1, 1, 1, width, dtype=torch.float64)
        vector[..., number] = 1
        return vector

    draws = 0

    def draw() -> Tensor:
        nonlocal draws
        draws += 1
        return coordinate(calls + draws)

    outputs = [coordinate(1 + k) for k in range(calls)]
    inputs, samples = _run(fresh, timesteps, coordinate(0), lambda k, _: outputs[k], draw)
    used = 1 + calls + draws
    return SamplerTable(
        name,
        steps,
        np.array([float(t) for t in timesteps]),
        np.stack([x.numpy().reshape(-1)[:used] for x in inputs]).astype(np.float64),
        np.stack([x.numpy().reshape(-1)[:used] for x in samples]).astype(np.float64),
        draws,
    )


def _run(
    scheduler: Any,
    timesteps: list[Any],
    start: Tensor,
    model: Callable[[int, Tensor], Tensor],
    draw: Callable[[], Tensor],
) -> tuple[list[Tensor], list[Tensor]]:
    """Run a scheduler, and return every model input and every sample."""
    latents = start * float(getattr(scheduler, "init_noise_sigma", 1.0))
    # Pipelines pass eta = 0; TCD's own default differs.
    takes_eta = "eta" in inspect.signature(scheduler.step).parameters
    more = {"eta": 0.0} if takes_eta else {}
    inputs, samples = [], []
    with _noise_from(draw):
        for k, timestep in enumerate(timesteps):
            scaled = latents
            if hasattr(scheduler, "scale_model_input"):
                scaled = scheduler.scale_model_input(latents, timestep)
            output = model(k, scaled)
            latents = scheduler.step(output, timestep, latents, return_dict=False, **more)[0]
            inputs.append(scaled)
            samples.append(latents)
    return inputs, samples


def _disagreement(scheduler: Any, table: SamplerTable, settings: RunSettings) -> float:
    """Return the largest error of a table against its scheduler, relative to the sample.

    The random model outputs are ten times as large as usual, so that clipping would show.
    """
    fresh, timesteps = _prepared(scheduler, table.steps, settings)
    g = torch.Generator().manual_seed(0)
    basis = 10 * torch.randn(table.inputs.shape[1], 1, 4, 8, 8, generator=g, dtype=torch.float64)
    rest = iter(basis[1 + table.calls :])
    inputs, samples = _run(
        fresh, timesteps, basis[0], lambda k, _: basis[1 + k], lambda: next(rest)
    )
    errors: list[float] = []
    for rows, tensors in ((table.inputs, inputs), (table.samples, samples)):
        for row, true in zip(torch.from_numpy(rows), tensors, strict=True):
            error = (torch.tensordot(row, basis, 1) - true).abs().max()
            errors.append(float(error / true.abs().max().clamp_min(1)))
    return float(np.max(errors))  # NaN if any is NaN, unlike Python's max


@contextmanager
def _noise_from(draw: Callable[[], Tensor]) -> Iterator[None]:
    """Replace the random noise of diffusers' schedulers by the results of `draw`."""
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
