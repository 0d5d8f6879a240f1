"""Every part of the bench can still be imported after a change elsewhere."""

import importlib
from pathlib import Path

import pytest

import bench
from bench.__main__ import LONG, OTHERS, RELEASE

MODULES = sorted(path.stem for path in Path(bench.__file__).parent.glob("*.py") if not path.stem.startswith("__"))


@pytest.mark.parametrize("name", MODULES)
def test_it_can_be_imported(name: str) -> None:
    assert importlib.import_module(f"bench.{name}").__doc__


@pytest.mark.parametrize("part", [*RELEASE, *OTHERS, *LONG])
def test_every_part_can_run(part: str) -> None:
    assert callable(importlib.import_module(f"bench.{part}").run)
