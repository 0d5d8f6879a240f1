"""A file that is mostly known has the same configuration, or the same errors, as if it were read whole."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbmux.config import known_services
from lbmux.config.known_services import KnownServices, cut
from lbmux.config.loader import parse
from lbmux.config.models import Config
from lbmux.errors import ConfigError

PATH = Path("services.yaml")
FILE = """\
# the pool
muxes: [10.0.1.2]
services:
  # the web
  - name: web
    vip: 192.0.2.1
    protocol: tcp
    port: 80
    backends:
      - {dip: 10.1.1.2}
      - {dip: 10.1.1.3, weight: 2}

  - name: mail
    vip: 192.0.2.1
    protocol: tcp
    port: 25
    idle: {fin_s: 7}
    backends: [{dip: 10.1.1.3}]
  - name: dns
    vip: 192.0.2.1
    protocol: udp
    port: 53
    backends:
    - dip: 10.1.1.4
idle: {tcp_s: 60}  # short
"""
LINES = FILE.splitlines(keepends=True)
ODD_LINES = (
    "", "\n", "# services:\n", "services:\n", "  - name: web\n", "  - {}\n", "- x\n", "  -\n", "   - a\n", "---\n",
    "...\n",
    "'\n", '  x: "\n', "    x: |\n", "      - y\n", "    idle: &a {tcp_s: 3}\n", "    idle: *a\n", "\t- a\n", "  \r",
    "    port: 81 # '\n", "muxes: []\n", "idle: {udp_s: 9}\n", "    vip: 10.1.1.2\n", "{\n", "}\n",
    "  - name: x\r  - name: y\n",
)  # fmt: skip
OTHERS = FILE.replace("port: 25", "port: 26")


def _outcome(text: str, known: KnownServices | None = None) -> Config | str:
    try:
        return (known.parse if known else parse)(text.encode(), PATH)
    except ConfigError as error:
        return str(error)


@given(st.lists(st.tuples(st.integers(0, len(LINES)), st.integers(0, 2), st.sampled_from(ODD_LINES)), max_size=3))
@settings(max_examples=150, deadline=None)
def test_an_edited_file_means_the_same(edits: list[tuple[int, int, str]]) -> None:
    known, lines = KnownServices(), [*LINES]
    known.parse(FILE.encode(), PATH)
    for at, removed, line in edits:
        lines[at : at + removed] = [line]
    for text in ("".join(lines), FILE):
        assert _outcome(text, known) == _outcome(text)


@pytest.mark.parametrize(
    "text",
    [
        FILE.replace("tcp_s: 60", "tcp_s: 61"),
        FILE + "maglev: {size: auto}\n",
        FILE.replace("muxes: [10.0.1.2]", "muxes: [192.0.2.1]"),
        FILE.replace("name: dns", "name: mail"),
        FILE.replace("  - name", "- name"),
        FILE.replace("\n", "\r\n"),
        "\ufeff" + FILE,
        FILE.replace("services:", "services: # all"),
        FILE + "services: []\n",
        'idle: "\n' + FILE.replace("port: 80", 'port: 80 # "'),
    ],
)
def test_what_is_around_the_services_counts(text: str) -> None:
    known = KnownServices()
    known.parse(FILE.encode(), PATH)
    assert _outcome(text, known) == _outcome(text)


def test_services_with_the_same_lines_stay_the_same_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    known = KnownServices()
    before = known.parse(FILE.encode(), PATH)
    monkeypatch.setattr(known_services, "parse", None)  # it is not read whole again
    after = known.parse(OTHERS.encode(), PATH)
    same = [old is new for old, new in zip(before.services, after.services, strict=True)]
    assert same == [True, False, True]
    assert after == parse(OTHERS.encode(), PATH)
    assert known.parse(FILE.encode(), PATH) is before


def test_a_pool_that_changes_changes_its_services() -> None:
    known = KnownServices()
    web = "- {name: web, vip: 192.0.2.1, protocol: tcp, port: 80, pool: servers}\n"
    for dip in ("10.1.1.2", "10.1.1.3"):
        text = f"pools: {{servers: [{{dip: {dip}}}]}}\nservices:\n{web}"
        for more in ("", "- {name: dns, vip: 192.0.2.1, protocol: udp, port: 53, pool: servers}\n"):
            config = known.parse((text + more).encode(), PATH)
            assert config == parse((text + more).encode(), PATH) and str(config.services[0].backends[0].dip) == dip


def test_a_file_is_forgotten_after_some_others() -> None:
    known = KnownServices()
    before = known.parse(FILE.encode(), PATH)
    for number in range(known_services.KEPT_FILES):
        known.parse(OTHERS.encode() + b"#" * number, PATH)
    assert known.parse(FILE.encode(), PATH) is not before


def test_pieces_are_the_whole_file() -> None:
    pieces = cut(FILE.encode())
    assert pieces is not None
    assert pieces.before + b"".join(pieces.services) + pieces.behind == FILE.encode()
    assert [piece.splitlines()[0] for piece in pieces.services] == [
        b"  - name: web", b"  - name: mail", b"  - name: dns",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text", ["services: []\n", "services: [{name: a}]\n", "{services: []}", '"services":\n  - a\n']
)
def test_other_styles_are_not_cut(text: str) -> None:
    assert cut(text.encode()) is None
