"""The channel by which agents tell muxes of their backends: lines over TCP, proved by a token that both sides have.

    agent -> mux   NONCE              each side's nonce is new, so nothing can be played again
    mux -> agent   NONCE PROOF        the mux has the token: HMAC(token, "mux", both nonces)
    agent -> mux   MAC MESSAGE ...    so has the agent: HMACs by a key of this session, HMAC(token, "session", both)

HMAC-SHA256 (RFC 2104), in hexadecimal; a message is a JSON object whose ``n`` counts from 0.  Nothing here is secret
but the token; what is told can be read on the way, not changed.
"""

import asyncio
import hmac
import json
import secrets
from pathlib import Path
from typing import Any

from lbmux.errors import LbmuxError, SetupError

LEAST_TOKEN_BYTES, MOST_TOKEN_BYTES, NONCE_BYTES = 16, 4096, 32
LINE_BYTES = 1 << 20
OTHERS = 0o077


class ChannelError(LbmuxError):
    """The other side does not have the token, or is something else."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(why)

    def __str__(self) -> str:
        return self.why


def read_token(path: Path) -> bytes:
    """A file's contents, without the white space around them; SetupError where it cannot serve."""
    try:
        with path.open("rb") as file:
            token, mode = file.read(MOST_TOKEN_BYTES + 1).strip(), path.stat().st_mode
    except OSError as error:
        raise SetupError(str(path), error.strerror or str(error), f"openssl rand -hex 32 > {path}") from error
    if mode & OTHERS:
        raise SetupError(str(path), "others may read it", f"chmod 600 {path}")
    if len(token) > MOST_TOKEN_BYTES:
        raise SetupError(str(path), f"longer than {MOST_TOKEN_BYTES} bytes", f"openssl rand -hex 32 > {path}")
    if len(token) < LEAST_TOKEN_BYTES:
        raise SetupError(str(path), f"shorter than {LEAST_TOKEN_BYTES} bytes", f"openssl rand -hex 32 > {path}")
    return token


def _mac(key: bytes, *parts: bytes) -> bytes:
    return hmac.digest(key, b" ".join(parts), "sha256").hex().encode()


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        line = await reader.readline()
    except ValueError as error:
        raise ChannelError("a line that is longer than the reader's limit") from error
    if not line.endswith(b"\n"):
        raise ChannelError("the connection has ended")
    return line.strip()


class HealthPublisher:
    """The agent's end."""

    def __init__(self, writer: asyncio.StreamWriter, key: bytes) -> None:
        self._writer, self._key, self._count = writer, key, 0

    @classmethod
    async def opened(
        cls, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: bytes
    ) -> "HealthPublisher":
        """After the mux has proved itself; else ChannelError."""
        own = secrets.token_hex(NONCE_BYTES).encode()
        writer.write(own + b"\n")
        nonce, _, proof = (await _line(reader)).partition(b" ")
        if not hmac.compare_digest(proof, _mac(token, b"mux", own, nonce)):
            raise ChannelError("a mux with another token")
        return cls(writer, _mac(token, b"session", own, nonce))

    async def tell(self, message: dict[str, Any]) -> None:
        said = json.dumps(message | {"n": self._count}).encode()
        self._count += 1
        self._writer.write(_mac(self._key, said) + b" " + said + b"\n")
        await self._writer.drain()


class HealthSubscriber:
    """The mux's end."""

    def __init__(self, reader: asyncio.StreamReader, key: bytes) -> None:
        self._reader, self._key, self._count = reader, key, 0

    @classmethod
    async def opened(
        cls, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: bytes
    ) -> "HealthSubscriber":
        other, own = await _line(reader), secrets.token_hex(NONCE_BYTES).encode()
        writer.write(own + b" " + _mac(token, b"mux", other, own) + b"\n")
        return cls(reader, _mac(token, b"session", other, own))

    async def hear(self) -> dict[str, Any]:
        """The next message; ChannelError where it is not the agent's next one."""
        mac, _, said = (await _line(self._reader)).partition(b" ")
        if not hmac.compare_digest(mac, _mac(self._key, said)):
            raise ChannelError("an agent with another token")
        try:
            message: Any = json.loads(said)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict) or message.get("n") != self._count:
            raise ChannelError("a message out of turn")
        self._count += 1
        return message
