"""Files as people write them, and the line that each problem is found in."""

import contextlib
import gc
import os
from pathlib import Path

import pytest

from lbmux.config import models
from lbmux.config.loader import MAX_BYTES, MOST_PROBLEMS, load, parse
from lbmux.config.models import Config
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


def test_a_missing_key_is_reported_at_its_parent() -> None:
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
    ((errors, _),) = problems(text)
    assert errors == line


def test_brackets_without_end_are_a_problem_and_no_crash() -> None:
    ((line, _),) = problems("[" * 5000)
    assert line in (1, 2)  # newer YAML parsers report the depth in the first line, older ones at the end


def test_recursive_alias_is_a_problem_and_no_endless_loop() -> None:
    assert (1, "services[0]") in problems("services: &loop [*loop]\n")


def test_file_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "none.yaml")
    assert str(caught.value) == f"{tmp_path}/none.yaml: cannot be read: No such file or directory"


def test_directory_in_place_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path)


def said(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text.encode(), Path("lbmux.yaml"))
    return caught.value.lines()


@pytest.mark.parametrize(
    ("known", "typo", "place"),
    [
        ("    protocol: tcp", "    protocl: tcp", "lbmux.yaml:5: services[0].protocl"),
        ("        weight: 2", "        wieght: 2", "lbmux.yaml:10: services[0].backends[1].wieght"),
        ("muxes:", "muxs:", "lbmux.yaml:1: muxs"),
        ("services:", "idle: {fin-s: 7}\nservices:", "lbmux.yaml:2: idle.fin-s"),
        ("    port: 80", "    port: 80\n    health: {intervall_s: 1}", "lbmux.yaml:7: services[0].health.intervall_s"),
    ],
)  # fmt: skip
def test_an_unknown_key_like_a_known_one_is_reported_with_it(known: str, typo: str, place: str) -> None:
    meant = {"protocl": "protocol", "wieght": "weight", "muxs": "muxes", "fin-s": "fin_s"}
    wanted = meant.get(place.rpartition(".")[2].rpartition(" ")[2], "interval_s")
    assert f"{place}: is not a known field: did you mean `{wanted}`?" in said(GOOD.replace(known, typo))


def test_an_unknown_key_like_no_other_is_reported_without_a_guess() -> None:
    assert said(GOOD + "zzz: 1\n") == ["lbmux.yaml:11: zzz: is not a known field"]


def many(services: int, backends: int) -> str:
    lines = ["services:"]
    for at in range(services):
        lines.append(f"  - {{name: s{at}, vip: 192.{at >> 16}.{at >> 8 & 255}.{at & 255}, protocol: tcp, port: 80,")
        dips = [at * backends + n for n in range(backends)]
        items = (f"{{dip: 10.{dip >> 16}.{dip >> 8 & 255}.{dip & 255}}}" for dip in dips)
        lines.append(f"     backends: [{', '.join(items)}]}}")
    return "\n".join(lines)


@pytest.mark.slow
def test_far_too_many_services_are_refused_without_checking_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Config, "model_validate", None)
    monkeypatch.setattr(models, "MAX_SERVICES", 1024)
    monkeypatch.setattr(models, "MAX_BACKENDS", 16384)
    said_of = said(many(4000, 10))
    assert said_of == [
        "lbmux.yaml:1: services: 4000 services: the limit is 1024",
        "lbmux.yaml:1: services: 40000 backends in all: the limit is 16384",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("services", "backends"), [(1024, 16), (4000, 10)])
def test_the_collector_does_not_walk_a_growing_tree(services: int, backends: int) -> None:
    collections = list[str]()
    count = lambda phase, info: collections.append(phase)  # noqa: E731 -- one line in the test
    text = many(services, backends).encode()
    gc.callbacks.append(count)
    try:
        with contextlib.suppress(ConfigError):
            parse(text, Path("lbmux.yaml"))
    finally:
        gc.callbacks.remove(count)
    assert len(collections) <= 2  # one collection starts and ends when collection is on again
    assert gc.isenabled()


def test_a_file_without_end_is_refused_at_the_limit(tmp_path: Path) -> None:
    endless = tmp_path / "endless.yaml"
    with endless.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ConfigError) as caught:
        load(endless)
    assert str(caught.value) == f"{endless}: is longer than the limit of {MAX_BYTES} bytes"


def test_a_fifo_without_a_writer_and_a_device_are_refused_at_once(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo.yaml"
    os.mkfifo(fifo)
    for path in (fifo, Path("/dev/zero")):
        with pytest.raises(ConfigError) as caught:
            load(path)
        why = "cannot be read: it is not a regular file (use - for standard input)"
        assert str(caught.value) == f"{path}: {why}"


def test_only_the_first_problems_are_listed() -> None:
    errors = problems("services: []\n" + "".join(f"k{number}: 1\n" for number in range(5000)))
    assert len(errors) == MOST_PROBLEMS + 1 and errors[0] == (2, "k0")
    with pytest.raises(ConfigError, match=r"4000 more problems not listed"):
        parse(b"services: []\n" + b"".join(b"k%d: 1\n" % number for number in range(5000)), Path("x"))


@pytest.mark.parametrize("number", ["1" + ":1" * 500, "9" * 5000, "1." + "1" * 500])
def test_numbers_without_end_are_refused(number: str) -> None:
    with pytest.raises(ConfigError, match=rf"is not valid YAML: a number of {len(number)} characters"):
        parse(f"services: {number}".encode(), Path("x"))
