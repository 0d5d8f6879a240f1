import asyncio

import pytest

from tests.health.servers import probe


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("test", "{dip}:{port}", "=", "127.0.0.1:81"), (True, "test exited with 0")),
        (("false",), (False, "false exited with 1")),
        (("sleep", "5"), (False, "no answer within 0.3 s")),
        (("/nowhere/at/all",), (False, "No such file or directory")),
    ],
)
def test_command(words: tuple[str, ...], expected: tuple[bool, str]) -> None:
    assert asyncio.run(probe(81, kind="command", command=words, timeout_s=0.3)) == expected


def test_it_sees_nothing_of_the_daemon_and_has_no_rights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "1")
    check = 'test -z "$SECRET" && test "$PWD" = / && grep -q "CapEff:.*0000000000000000" /proc/self/status'
    words = ("sh", "-c", check)
    assert asyncio.run(probe(81, kind="command", command=words, timeout_s=1)) == (True, "sh exited with 0")
