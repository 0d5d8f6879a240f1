"""The data path is written once: what is changed in one of its files changes in both targets."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
KERNEL_ONLY = ROOT / "lbmux" / "targets" / "bpf"
LAYOUTS = {"lbmux.datapath.headers", "lbmux.datapath.parse", "lbmux.datapath.flows", "lbmux.datapath.hashing",
           "lbmux.datapath.encapsulate", "lbmux.datapath.decapsulate", "lbmux.datapath.translate",
           "lbmux.datapath.match", "lbmux.datapath.checksums"}  # fmt: skip


@pytest.mark.parametrize("path", sorted(KERNEL_ONLY.glob("*.py")), ids=lambda path: path.name)
def test_the_kernel_target_knows_no_header_flow_or_hash(path: Path) -> None:
    """It calls the mux' and the agent's functions; the steps, and what they read, are not even imported."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
        assert not LAYOUTS & set(names), f"{path.name}: line {getattr(node, 'lineno', 0)}"


def _targets(tree: Path, **more: str) -> dict[str, list[int]]:
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"} | more
    command = [sys.executable, "-m", "tests.targets.bpf.one_source"]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    targets: dict[str, list[int]] = json.loads(done.stdout)
    return targets


@pytest.mark.root
def test_a_change_of_the_hash_in_one_file_changes_both_targets(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    skipped = shutil.ignore_patterns("__pycache__")
    for name in ("lbmux", "tests"):
        shutil.copytree(ROOT / name, tree / name, ignore=skipped)
    before = _targets(ROOT)
    assert before["native"] == before["kernel"]
    file = tree / "lbmux" / "datapath" / "hashing.py"
    text = file.read_text()
    assert text.count("0xE6546B64") == 1
    file.write_text(text.replace("0xE6546B64", "0xE6546B65"))
    after = _targets(tree, LBMUX_CACHE=str(tmp_path))
    assert after["native"] == after["kernel"]
    same = sum(old == new for old, new in zip(before["native"], after["native"], strict=True))
    assert same < len(before["native"]) / 10
