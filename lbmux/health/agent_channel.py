"""The channel on which agents report health to muxes: lines over TCP, authenticated by a shared token.

    agent -> mux   NONCE              both nonces are random, which prevents replays
    mux -> agent   NONCE PROOF        proves that the mux has the token: HMAC(token, "mux", both nonces)
    agent -> mux   MAC MESSAGE ...    each MAC uses a session key, HMAC(token, "session", both nonces)

All HMACs are HMAC-SHA256 (RFC 2104) in hexadecimal.  A message is a JSON object whose ``n`` counts from 0.  The token
is the only secret: messages are authenticated, but not encrypted.
"""

import asyncio
import hmac
import json
import secrets
from pathlib import Path
from typing import Any

from lbmux.errors import LbmuxError, SetupError

MIN_TOKEN_BYTES, MAX_TOKEN_BYTES, NONCE_BYTES = 16, 4096, 32
LINE_BYTES = 1 << 20
GROUP_AND_OTHERS = 0o077
"""Mode bits that a token file must not have."""


class ChannelError(LbmuxError):
    """The peer does not have the token, or does not speak this protocol; ``why`` gives the reason."""

    why: str

    def __str__(self) -> str:
        return self.why


def read_token(path: Path) -> bytes:
    """Read a token file and strip white space; raise SetupError if the file or the token is not acceptable."""
    try:
        with path.open("rb") as file:
            token, mode = file.read(MAX_TOKEN_BYTES + 1).strip(), path.stat().st_mode
    except OSError as error:
        raise SetupError(str(path), error.strerror or str(error), f"openssl rand -hex 32 > {path}") from error
    if mode & GROUP_AND_OTHERS:
        raise SetupError(str(path), "its group or others have access", f"chmod 600 {path}")
    if len(token) > MAX_TOKEN_BYTES:
        raise SetupError(str(path), f"longer than {MAX_TOKEN_BYTES} bytes", f"openssl rand -hex 32 > {path}")
    if len(token) < MIN_TOKEN_BYTES:
        raise SetupError(str(path), f"shorter than {MIN_TOKEN_BYTES} bytes", f"openssl rand -hex 32 > {path}")
    return token


def _mac(key: bytes, *parts: bytes) -> bytes:
    return hmac.digest(key, b" ".join(parts), "sha256").hex().encode()


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        line = await reader.readline()
    except ValueError as error:
        raise ChannelError("a line is longer than the limit") from error
    if not line.endswith(b"\n"):
        raise ChannelError("the connection has ended")
    return line.strip()


class HealthPublisher:
    """The agent's end of the channel."""

    def __init__(self, writer: asyncio.StreamWriter, key: bytes) -> None:
        self._writer, self._key, self._count = writer, key, 0

    @classmethod
    async def opened(
        cls, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: bytes
    ) -> "HealthPublisher":
        """Authenticate the mux; raise ChannelError if that fails."""
        own = secrets.token_hex(NONCE_BYTES).encode()
        writer.write(own + b"\n")
        nonce, _, proof = (await _line(reader)).partition(b" ")
        if not hmac.compare_digest(proof, _mac(token, b"mux", own, nonce)):
            raise ChannelError("the mux has another token")
        return cls(writer, _mac(token, b"session", own, nonce))

    async def send(self, message: dict[str, Any]) -> None:
        text = json.dumps(message | {"n": self._count}).encode()
        self._count += 1
        self._writer.write(_mac(self._key, text) + b" " + text + b"\n")
        await self._writer.drain()


class HealthSubscriber:
    """The mux's end of the channel."""

    def __init__(self, reader: asyncio.StreamReader, key: bytes) -> None:
        self._reader, self._key, self._count = reader, key, 0

    @classmethod
    async def opened(
        cls, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: bytes
    ) -> "HealthSubscriber":
        other, own = await _line(reader), secrets.token_hex(NONCE_BYTES).encode()
        writer.write(own + b" " + _mac(token, b"mux", other, own) + b"\n")
        return cls(reader, _mac(token, b"session", other, own))

    async def receive(self) -> dict[str, Any]:
        """Return the next message; raise ChannelError if it is not authentic, or out of sequence."""
        mac, _, text = (await _line(self._reader)).partition(b" ")
        if not hmac.compare_digest(mac, _mac(self._key, text)):
            raise ChannelError("the agent has another token")
        try:
            message: Any = json.loads(text)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict) or message.get("n") != self._count:
            raise ChannelError("a message is out of sequence")
        self._count += 1
        return message
