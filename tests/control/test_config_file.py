"""Files as people write them, and the line that each problem is found in."""

from pathlib import Path

import pytest

from lbmux.control.config_file import load, parse
from lbmux.errors import ConfigError

GOOD = """\
muxes: [10.0.1.2, 10.0.2.2]
services:
  - name: web
    vip: 192.0.2.1
    protocol: tcp
    port: 80
    backends:
      - {name: h1, dip: 10.1.1.2, port: 8080}
      - dip: 10.1.1.3
        weight: 2
"""


def problems(text: str | bytes) -> list[tuple[int | None, str]]:
    with pytest.raises(ConfigError) as caught:
        parse(text.encode() if isinstance(text, str) else text, Path("lbmux.yaml"))
    return [(problem.line, problem.field) for problem in caught.value.problems]


def test_a_good_file(tmp_path: Path) -> None:
    (tmp_path / "lbmux.yaml").write_text(GOOD)
    config = load(tmp_path / "lbmux.yaml")
    assert [backend.name for backend in config.services[0].backends] == ["h1", "10.1.1.3:80"]


def test_every_problem_at_once_each_with_its_line() -> None:
    text = GOOD.replace("192.0.2.1", "192.0.2").replace(": 2\n", ": -2\n").replace("[10.0.1.2", "[bad")
    assert problems(text) == [(1, "muxes[0]"), (4, "services[0].vip"), (10, "services[0].backends[1].weight")]


def test_unknown_key_is_named_at_its_own_line() -> None:
    assert problems(GOOD + "        colour: red\n") == [(11, "services[0].backends[1].colour")]


def test_missing_key_is_named_at_what_it_is_missing_from() -> None:
    assert problems(GOOD.replace("    protocol: tcp\n", "")) == [(3, "services[0].protocol")]


def test_missing_services_are_named_at_the_beginning() -> None:
    assert problems("# nothing yet\nmuxes: []\n") == [(2, "services")]


def test_repeated_key_is_named_with_the_other_problems() -> None:
    assert problems(GOOD + "muxes: [bad]\n") == [(11, "muxes"), (11, "muxes[0]")]


def test_aliases_and_merge_keys_keep_their_lines() -> None:
    text = GOOD.replace("- dip: 10.1.1.3\n", "- &two\n        dip: 10.1.1.3\n")
    text += "      - {<<: *two, dip: 10.1.1.4, name: -}\n      - {<<: *two, name: [], dip: 10.1.1.5}\n"
    assert problems(text) == [(13, "services[0].backends[3].name")]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 1),
        ("# nothing\n", 1),
        ("services: [\n", 2),
        ("services:\n  - a\n b\n", 3),
        ("services: []\n\tmuxes: []\n", 2),
        ("services: []\n---\nservices: []\n", 2),
        (b"services: []\n# \xff\xfe\n", 2),
        (b"services: []\n\x00\n", 2),
        ("services: *nowhere\n", 1),
        ("services: !!python/object:os.system {}\n", 1),
        ("? [a]\n: b\n", 1),
        ("services: 2020-13-45\n", 1),
        ("[" * 200, 2),
        ("- services\n", 1),
        ("services\n", 1),
    ],
)  # fmt: skip
def test_junk(text: str | bytes, line: int) -> None:
    ((found, _),) = problems(text)
    assert found == line


def test_brackets_without_end_are_a_problem_and_no_crash() -> None:
    ((line, _),) = problems("[" * 5000)
    assert line in (1, 2)  # newer readers of YAML stop at a depth, in the first line; older ones at the end


def test_recursive_alias_is_a_problem_and_no_endless_loop() -> None:
    assert (1, "services[0]") in problems("services: &loop [*loop]\n")


def test_file_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "none.yaml")
    assert str(caught.value) == f"{tmp_path}/none.yaml: cannot be read: No such file or directory"


def test_directory_in_place_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path)
