"""`lbmux web` as a process: where it listens, and which clients need a token."""

import contextlib
import re
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbmux.cli.main import run
from lbmux.daemons import process
from lbmux.tools.web import web_server
from tests.lbmux_command import beside


@contextlib.contextmanager
def serving(tmp_path: Path, *options: str) -> Iterator[str]:
    """Return the printed link, as a browser on this machine opens it."""
    with beside("web", "--port", "0", "--control", str(tmp_path / "mux.sock"), *options) as server:
        server.wait_for("\n")
        link = re.search(r"http://\S+", server.errors)
        assert link is not None
        yield link[0].replace("0.0.0.0", "127.0.0.1")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(10) == 0


def status(link: str) -> int:
    """Return the status of the page behind a URL; a link with a token redirects and sets a cookie."""
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    try:
        with opener.open(link, timeout=10) as answer:
            assert b"<title>lbmux</title>" in answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_on_loopback_no_token_is_required(tmp_path: Path) -> None:
    with serving(tmp_path) as link:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", link)
        assert status(link) == 200


def test_a_page_with_actions_has_a_token_on_loopback_too(tmp_path: Path) -> None:
    with serving(tmp_path, "--actions") as link:
        page, _, token = link.partition("?token=")
        assert token and status(page) == 401 and status(link) == 200


def test_on_another_address_a_generated_token_is_required(tmp_path: Path) -> None:
    with serving(tmp_path, "--host", "0.0.0.0") as link:
        page, _, token = link.partition("?token=")
        assert status(page) == 401 and status(f"{page}?token={token}x") == 401
        assert status(link) == 200


def test_a_given_token_is_required_on_loopback_too(tmp_path: Path) -> None:
    with serving(tmp_path, "--token", "of-ours") as link:
        assert link.endswith("/?token=of-ours")
        assert status(link.partition("?")[0]) == 401 and status(link) == 200


@pytest.fixture
def tokens(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The token of each page that a command would serve; nothing is served."""
    texts = list[str | None]()
    monkeypatch.setattr(web_server, "serve", lambda site, host, port, token: texts.append(token))
    monkeypatch.setattr(process, "run", lambda program: None)
    return texts


def test_each_start_generates_another_token(tokens: list[str | None]) -> None:
    assert [run(["web", "--host", "0.0.0.0"]) for _ in range(2)] == [0, 0]
    assert len(set(tokens)) == 2 and min(len(token or "") for token in tokens) >= 22  # 16 random bytes


def test_a_token_from_the_environment(tokens: list[str | None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LBMUX_WEB_TOKEN", "of-ours")
    assert run(["web"]) == 0 and tokens == ["of-ours"]


@pytest.mark.parametrize("token", ["", "\xfcber", "\u2603", "two\nlines"])
def test_a_token_that_no_header_carries_is_wrong_usage(token: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["web", "--token", token]) == 2
    assert "--token must consist of printable ASCII characters" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"\xd4\xc3\xb2\xa1\xff", b"{}", b"7", b"[" * 100_000, b'{"outcomes": 7}'])
def test_an_invalid_scoreboard_is_reported_at_the_start(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    scoreboard = tmp_path / "scoreboard.json"
    scoreboard.write_bytes(content)
    assert run(["web", "--scoreboard", str(scoreboard)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"lbmux: {scoreboard}: ")
