"""Fields and settings of AUTOMATIC1111's web UI that this server does not implement.

Clients of the web UI send most of its fields with every request, whether their user set them or
not. A value that would not change the image is accepted. Any other value is rejected, because the
image would silently differ from what was requested. As in the web UI, unknown fields are ignored
and unknown settings are rejected.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from sdpack.runtime.infotext import SHORT_HASH, model_hash
from sdpack.runtime.sampler_label import SamplerLabel
from sdpack.serve.answers import NotFoundError
from sdpack.serve.schemas import WebUiModel
from sdpack.serve.service import BadRequestError, Service

Accepts = Callable[[Any], bool]

SENT_UNASKED = ("automatic", "euler", "euler a")
"""Samplers that clients send if their user chose none: the default of the web UI's API, and that of
its client library. The response names the sampler that was used."""
SAME_SCHEDULE = ("automatic", "use same scheduler")
EXTRA_NETWORK = re.compile(r"<(lora|lyco|hypernet):[^<>]+>")
ENABLED = ("enabled", "enable", "is_enabled")
SHOWN_LENGTH = 40  # characters of a value in a message


def _off(value: Any) -> bool:
    return not value


def _none(value: Any) -> bool:
    return not value or (isinstance(value, str) and value.lower() in ("none", "automatic"))


def _at_most_zero(value: Any) -> bool:
    return not value or (isinstance(value, int | float) and value <= 0)


def _one_of(*values: Any) -> Accepts:
    return lambda value: value is None or value in values


FIELDS: Mapping[str, tuple[Accepts, str]] = {
    "clip_skip": (_one_of(0, 1), "the text encoder's layers are fixed in the bundle"),
    "controlnet_units": (lambda value: _units_off(value), "this server has no ControlNet"),
    "enable_hr": (_off, "this server has no second pass in a higher resolution"),
    "eta": (_one_of(0, 1), "the bundle's sampler is fixed"),
    "infotext": (_off, "send its values in fields of their own; /sdapi/v1/png-info parses it"),
    "init_images": (_off, "this server draws from text alone"),
    "mask": (_off, "this server draws from text alone"),
    "refiner_checkpoint": (_none, "this server has no refiner"),
    "restore_faces": (_off, "this server has no face restoration"),
    "s_churn": (_off, "the bundle's sampler is fixed"),
    "s_min_uncond": (_off, "the bundle's sampler is fixed"),
    "s_noise": (_one_of(1), "the bundle's sampler is fixed"),
    "script_name": (_none, "this server has no scripts"),
    "seed_resize_from_h": (_at_most_zero, "noise of another size cannot be resized here"),
    "seed_resize_from_w": (_at_most_zero, "noise of another size cannot be resized here"),
    "styles": (_off, "this server has no styles; write their words into the prompt"),
    "subseed_strength": (_off, "noise of two seeds cannot be mixed here"),
    "tiling": (_off, "this server cannot draw pictures that tile"),
    "token_merging_ratio": (_off, "the bundle's graphs are fixed"),
}
"""Fields of a request: which values are accepted, and why no others."""

SETTINGS: Mapping[str, tuple[Any, Accepts]] = {
    "CLIP_stop_at_last_layers": (1, _one_of(1)),
    "emphasis": ("None", _one_of("None")),  # parentheses and weights in prompts are plain text
    "eta_noise_seed_delta": (0, _off),
    "face_restoration": (False, _off),
    "k_sched_type": ("Automatic", _none),
    "s_churn": (0, _off),
    "s_min_uncond": (0, _off),
    "s_noise": (1, _one_of(1)),
    "samples_format": ("png", _one_of("png")),
    "sd_hypernetwork": ("None", _none),
    "sd_unet": ("Automatic", _none),
    "sd_vae": ("Automatic", _none),
    "tiling": (False, _off),
    "token_merging_ratio": (0, _off),
}
"""Settings: the current value, and which values mean the same."""

ABOUT_FILES = (
    "directories_",
    "grid_",
    "live_preview",
    "outdir_",
    "return_grid",
    "samples_filename_",
    "samples_save",
    "save_",
    "sd_checkpoint_cache",
    "sd_checkpoints_",
    "sd_vae_checkpoint_cache",
    "show_",
)
"""Prefixes of settings that are accepted, because they only concern files, previews and caches."""


def model_of(service: Service) -> WebUiModel:
    """The one model; its title is the value of `sd_model_checkpoint`."""
    content = model_hash(service.manifest)
    short = content[:SHORT_HASH]
    return WebUiModel(
        title=f"{service.name} [{short}]",
        model_name=service.name,
        hash=short,
        sha256=content,
        filename=service.name,
    )


def options_of(service: Service) -> dict[str, Any]:
    """The current settings."""
    model = model_of(service)
    own = {"sd_model_checkpoint": model.title, "sd_checkpoint_hash": model.sha256}
    return own | {name: value for name, (value, _) in SETTINGS.items()}


def check_request(service: Service, texts: tuple[str | None, ...], fields: Any) -> None:
    """Check that a request uses no feature that this server does not have.

    Args:
        texts: the prompt and the negative prompt.
        fields: all others, by their names in the web UI's API.

    Raises:
        BadRequestError: it uses such a feature.
        NotFoundError: it names another model.
    """
    given: Mapping[str, Any] = fields or {}
    for name, text in zip(("prompt", "negative_prompt"), texts, strict=True):
        network = EXTRA_NETWORK.search(text or "")
        if network is not None:
            shown = network[0][:SHOWN_LENGTH]
            what = f"{shown} cannot be added to a finished bundle; build one with it"
            raise BadRequestError(name, what)
    for name, (accepts, why) in FIELDS.items():
        value = given.get(name)
        if not accepts(value):
            raise BadRequestError(name, f"{_shown(value)} is not supported: {why}")
    _check_scripts(given.get("alwayson_scripts"))
    _check_sampler(service.worker.sampler, given)
    settings = given.get("override_settings")
    if settings:
        check_settings(service, settings, "override_settings")


def check_settings(service: Service, settings: Any, inside: str | None = None) -> None:
    """Check that settings have their current values; a server does not change them.

    Args:
        inside: the field of the request that holds them.

    Raises:
        BadRequestError: one has another value, or is unknown.
        NotFoundError: they name another model.
    """
    if not isinstance(settings, Mapping):
        raise BadRequestError(inside or "options", "must be an object of names and values")
    for name, value in settings.items():
        field = f"{inside}.{name[:SHOWN_LENGTH]}" if inside else name[:SHOWN_LENGTH]
        if name in ("sd_model_checkpoint", "sd_checkpoint_hash"):
            _check_model(service, field, value)
        elif name in SETTINGS:
            current, accepts = SETTINGS[name]
            if not accepts(value):
                raise BadRequestError(field, f"{_shown(value)} is not supported, only {current!r}")
        elif not name.startswith(ABOUT_FILES):
            known = ", ".join(options_of(service))
            raise BadRequestError(field, f"unknown setting; available: {known}")


def _check_model(service: Service, field: str, name: Any) -> None:
    model = model_of(service)
    names = (model.title, model.model_name, model.hash, model.sha256)
    if name and name not in names:
        raise NotFoundError(
            f"{field}: there is no model {_shown(name)} here, only {model.title!r}",
            "model_not_found",
        )


def _check_sampler(sampler: SamplerLabel, given: Mapping[str, Any]) -> None:
    field = "sampler_name" if given.get("sampler_name") else "sampler_index"
    own = (sampler.name, sampler.scheduler, f"{sampler.name} {sampler.schedule}")
    known = (*(name.lower() for name in own), *SENT_UNASKED)
    for name, names, mine in (
        (field, known, sampler.name),
        ("scheduler", (sampler.schedule.lower(), *SAME_SCHEDULE), sampler.schedule),
    ):
        value = given.get(name)
        if value and str(value).lower() not in names:
            raise BadRequestError(
                name, f"{_shown(value)} is not supported: the bundle was built with {mine!r}"
            )


def _check_scripts(scripts: Any) -> None:
    if not scripts:
        return
    if not isinstance(scripts, Mapping):
        raise BadRequestError("alwayson_scripts", "must be an object of scripts by their names")
    for name, script in scripts.items():
        given = script.get("args") if isinstance(script, Mapping) else script
        if not _units_off(given):
            raise BadRequestError(
                "alwayson_scripts",
                f"{_shown(name)} is not supported: this server has no scripts or extensions",
            )


def _units_off(given: Any) -> bool:
    """Whether a script's arguments leave it disabled.

    The first argument of most scripts enables them. ControlNet takes a list of units, each with a
    field that enables it.
    """
    units = given if isinstance(given, list) else [given]
    return units[:1] == [False] or all(
        not unit or (isinstance(unit, Mapping) and False in map(unit.get, ENABLED))
        for unit in units
    )


def _shown(value: Any) -> str:
    text = repr(value).encode(errors="replace").decode()
    return text if len(text) <= SHOWN_LENGTH else f"{text[:SHOWN_LENGTH]}..."
