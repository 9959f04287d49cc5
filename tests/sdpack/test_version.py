from __future__ import annotations

import importlib.metadata

import numpy as np
from sdpack.version import __version__, installed_version


def test_a_package_has_the_version_of_its_metadata() -> None:
    assert installed_version("numpy") == np.__version__
    assert __version__ == importlib.metadata.version("sdpack")


def test_a_package_that_is_not_installed_has_none() -> None:
    assert installed_version("no-package-of-this-name") is None
