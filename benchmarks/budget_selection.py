"""The selection that a build makes, at one memory budget after another, without the build."""

from __future__ import annotations
