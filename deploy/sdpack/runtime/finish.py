"""Building the engines of classic TensorRT on the device.

Such an engine runs only on the GPU it was built on. A bundle for such a device therefore ships with
graphs and shapes, and the engines are added on the device.
"""

from __future__ import annotations

import importlib.util
import platform
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from sdpack.documents.bundle import open_bundle, write_bundle
from sdpack.documents.layout import ENGINES, MANIFEST, VERIFIED, plan_name
from sdpack.documents.manifest import Engine, Finished, Manifest, PlanFigures
from sdpack.domain.placement import Role
from sdpack.engines import tensorrt_builder
from sdpack.engines.detect import gpus
from sdpack.engines.tensorrt_builder import TENSORRT_PACKAGES, Plan, extra_of
from sdpack.errors import MissingPackageError
from sdpack.store.files import link


def unfinished(manifest: Manifest) -> list[Role]:
    """Return the roles whose engines have yet to be built on the device."""
    if manifest.profile.runtime not in TENSORRT_PACKAGES:
        return []
    return [
        role
        for role, part in manifest.parts.items()
        if any(engine.plan is None for engine in part.engines)
    ]


def finish(folder: Path, say: Callable[[str], None] = lambda _: None) -> Manifest:
    """Build the missing engines of a bundle for this machine's GPU, and return its manifest.

    The bundle is replaced after all engines are built; if one fails, it stays unchanged.

    Raises:
        BundleError: the bundle is incomplete or damaged.
        MissingPackageError: the profile's TensorRT is not installed here.
        EngineError: an engine cannot be built.
        StoreError: the folder cannot be written.
    """
    manifest = open_bundle(folder)
    roles = unfinished(manifest)
    if not roles:
        return manifest
    package = TENSORRT_PACKAGES[manifest.profile.runtime]
    if importlib.util.find_spec(package) is None:
        raise MissingPackageError(package, extra_of(package), "building engines on the device")
    with tempfile.TemporaryDirectory() as scratch:
        plans = {
            role: {
                engine.graph: _build(folder, engine, package, Path(scratch), say)
                for engine in manifest.parts[role].engines
            }
            for role in roles
        }
        parts = dict(manifest.parts)
        for role in roles:
            names = {graph: plan_name(role, graph) for graph in plans[role]}
            parts[role] = parts[role].with_plans(names)
        update = {"parts": parts, "finished": _finished(package, plans)}

        def fill(new: Path) -> None:
            shutil.copytree(folder, new, copy_function=_link, dirs_exist_ok=True)
            (new / MANIFEST).unlink()
            (new / VERIFIED).unlink(missing_ok=True)
            (new / ENGINES).mkdir(exist_ok=True)
            for role, built in plans.items():
                for graph, plan in built.items():
                    target = new / plan_name(role, graph)
                    target.unlink(missing_ok=True)  # a hard link to the old bundle's file
                    shutil.copyfile(plan.path, target)

        return write_bundle(folder, manifest.model_copy(update=update), fill)


def _build(
    bundle: Path, engine: Engine, package: str, scratch: Path, say: Callable[[str], None]
) -> Plan:
    say(f"building {engine.graph} for this GPU")
    folder = scratch / engine.graph
    folder.mkdir(parents=True)
    return tensorrt_builder.build(package, bundle / engine.graph, folder, engine.inputs)


def _finished(package: str, plans: Mapping[Role, Mapping[str, Plan]]) -> Finished:
    names = [gpu.name for gpu in gpus()]
    return Finished(
        machine=names[0] if names else platform.machine(),
        package=package,
        version=next(plan.version for built in plans.values() for plan in built.values()),
        plans={
            role: PlanFigures(
                weight_bytes=sum(plan.weight_bytes for plan in built.values()),
                activation_bytes=max(plan.activation_bytes for plan in built.values()),
            )
            for role, built in plans.items()
        },
    )


def _link(source: str, target: str) -> None:
    link(Path(source), Path(target))
