import pytest

from lbmux.bgp.notifications import words


@pytest.mark.parametrize(("code", "subcode", "data", "said"), [
    (2, 2, b"", "OPEN message error: bad peer AS"),
    (4, 0, b"", "hold timer expired"),
    (6, 2, b"\x05later", 'cease: administrative shutdown ("later")'),
    (6, 4, b"\x04\x1b[2Jx", 'cease: administrative reset ("?[2J")'),
    (6, 2, b"\xff", "cease: administrative shutdown"),
    (6, 1, b"\x05later", "cease: maximum number of prefixes reached"),
    (3, 250, b"", "UPDATE message error: subcode 250"),
    (99, 1, b"", "error 99: subcode 1"),
    (6, 10, b"", "cease: BFD down"),
])  # fmt: skip
def test_code_and_subcode_in_words(code: int, subcode: int, data: bytes, said: str) -> None:
    assert words(code, subcode, data) == said
