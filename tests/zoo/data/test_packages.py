import tarfile
from pathlib import Path

import pytest

from zoo.data import packages
from zoo.errors import PackageUnavailableError


def fake_npm(folder: Path, script: str) -> None:
    npm = folder / "npm"
    npm.write_text(f"#!/bin/sh\n{script}\n")
    npm.chmod(0o755)


@pytest.fixture
def path_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in ("cp", "sh"):
        (folder / tool).symlink_to(f"/bin/{tool}")
    monkeypatch.setenv("PATH", str(folder))
    return folder


def test_without_npm_the_error_says_how_to_get_it(path_only: Path, tmp_path: Path) -> None:
    with pytest.raises(PackageUnavailableError, match=r"install Node\.js"):
        packages.fetch(packages.NOTO, tmp_path)


def test_a_refusal_is_passed_on_with_the_package_named(path_only: Path, tmp_path: Path) -> None:
    fake_npm(path_only, "echo 'E404 not found' >&2; exit 1")
    with pytest.raises(PackageUnavailableError, match=r"noto@1\.2\.9: E404 not found"):
        packages.fetch(packages.NOTO, tmp_path)


def test_another_tarball_than_the_pinned_one_is_not_unpacked(
    path_only: Path, tmp_path: Path
) -> None:
    inside = tmp_path / "package"
    inside.mkdir()
    with tarfile.open(tmp_path / "other.tgz", "w:gz") as archive:
        archive.add(inside, "package")
    fake_npm(path_only, f'cp {tmp_path / "other.tgz"} "$5/"')
    with pytest.raises(PackageUnavailableError, match="the registry served another file"):
        packages.fetch(packages.NOTO, tmp_path / "cache")
    assert list((tmp_path / "cache" / "packages").iterdir()) == []


def test_a_teacher_that_is_not_installed_is_named() -> None:
    with pytest.raises(PackageUnavailableError, match="pip install --no-deps some-teacher==1"):
        packages.installed_folder("no_such_teacher", "some-teacher==1")
