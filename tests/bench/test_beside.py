"""The comparison with another commit."""

import subprocess
from pathlib import Path

import pytest

from bench import beside

ROOT = Path(beside.__file__).parents[1]


@pytest.mark.slow
def test_a_process_measures_the_tree_in_its_folder() -> None:
    with beside.Side(ROOT) as side:
        assert side.ns(16, {}) > 0 and side.ns(16, {"flows": "changed"}) > 0


def test_a_checkout_has_the_commits_tree_and_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> None:
        subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x@example.org", *words], cwd=tmp_path, check=True)

    git("init", "--quiet")
    for text in ("before", "after"):
        (tmp_path / "file").write_text(text)
        git("add", "file")
        git("commit", "--quiet", "-m", text)
    monkeypatch.chdir(tmp_path)
    with beside.checkout("HEAD~1") as folder:
        assert (folder / "file").read_text() == "before"
    assert not folder.exists()
