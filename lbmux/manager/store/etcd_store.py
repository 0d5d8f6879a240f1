"""The store in an etcd cluster, through its JSON gateway (https://etcd.io/docs/v3.4/dev-guide/api_grpc_gateway/).

The gateway was measured against aetcd (gRPC) and etcd3gw with five members on one machine: a transaction takes 1.9 to
2.7 ms at the median (aetcd 1.8 to 2.4, etcd3gw 2.9 to 3.9), a change reaches a watch in 1.8 to 2.0 ms (aetcd 1.5 to
2.2). It needs aiohttp only.
"""

import asyncio
import json
import ssl
from base64 import b64decode, b64encode
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from contextlib import AsyncExitStack
from itertools import groupby
from typing import Any

import aiohttp

from lbmux.manager.store.store import (
    Batch,
    CompactedError,
    ConflictError,
    Contents,
    Entry,
    Guard,
    LeaseExpiredError,
    Store,
    UnavailableError,
    Write,
)

REQUEST_S, ATTEMPT_S = 4.0, 1.5
"""Time limits of a request: in total, and at one member, in seconds."""
QUIET_S = 5.0
"""A watch without news for this long continues at the next member: the current one may be cut off."""
NO_LEASE, LEASE_NOT_FOUND = "0", "requested lease not found"


class EtcdStore(Store):
    """``endpoints``: HOST:PORT of members; ``tls``: None for HTTP; ``root``: before each key, ends with a slash."""

    def __init__(self, endpoints: Sequence[str], tls: ssl.SSLContext | None, root: str = "lbmux/") -> None:
        self._urls = [f"{'https' if tls else 'http'}://{endpoint}/v3" for endpoint in endpoints]
        self._tls, self._root, self._member = tls, root, 0
        self._name = f"etcd {', '.join(endpoints)}"

    async def open(self, stack: AsyncExitStack) -> None:
        connector = aiohttp.TCPConnector(ssl=self._tls or True)
        timeout = aiohttp.ClientTimeout(total=None)
        self._session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector, timeout=timeout))

    async def read(self, prefix: str) -> Contents:
        answer = await self._ask("/kv/range", {**self._range(prefix), "sort_target": "KEY", "sort_order": "ASCEND"})
        entries = [self._entry(one) for one in answer.get("kvs", ())]
        return Contents(_revision(answer), {entry.key: entry for entry in entries})

    async def get(self, key: str) -> Entry | None:
        answer = await self._ask("/kv/range", {"key": self._key(key)})
        return next((self._entry(one) for one in answer.get("kvs", ())), None)

    async def commit(self, guards: Collection[Guard], writes: Collection[Write]) -> int:
        compare = [
            {"key": self._key(guard.key), "target": "MOD", "result": "EQUAL", "mod_revision": str(guard.modified)}
            for guard in guards
        ]
        look_up = [{"request_range": {"key": self._key(guard.key), "keys_only": True}} for guard in guards]
        body = {"compare": compare, "success": [*map(self._request, writes)], "failure": look_up}
        answer = await self._ask("/kv/txn", body, is_write=True)
        if not answer.get("succeeded"):
            responses = [one["response_range"].get("kvs", ()) for one in answer["responses"]]
            modified = [int(kvs[0]["mod_revision"]) if kvs else 0 for kvs in responses]
            pairs = zip(guards, modified, strict=True)
            raise ConflictError(tuple(guard.key for guard, at in pairs if guard.modified != at))
        return _revision(answer)

    async def watch(self, prefix: str, after: int) -> AsyncGenerator[Batch]:
        member = self._member
        while True:
            body = {"create_request": {**self._range(prefix), "start_revision": str(after + 1)}}
            try:
                async for result in self._stream(self._url("/watch", member), body):
                    if "compact_revision" in result:
                        raise CompactedError(after)
                    for revision, events in groupby(result.get("events", ()), _modified):
                        after = revision
                        yield Batch(revision, dict(map(self._change, events)))
            except TimeoutError:
                member += 1
            except (aiohttp.ClientError, ValueError):
                member += 1
                await asyncio.sleep(0.1)  # all members may refuse immediately

    async def grant(self, ttl_s: int) -> int:
        return int((await self._ask("/lease/grant", {"TTL": str(ttl_s)}))["ID"])

    async def keep(self, lease: int) -> None:
        answer = await self._ask("/lease/keepalive", {"ID": str(lease)})
        if int(answer["result"].get("TTL", 0)) <= 0:
            raise LeaseExpiredError(lease)

    async def revoke(self, lease: int) -> None:
        try:
            await self._ask("/lease/revoke", {"ID": str(lease)})
        except LeaseExpiredError:
            return

    def term(self, election: Entry) -> int:
        return election.created

    def _key(self, key: str) -> str:
        return _text(f"{self._root}{key}".encode())

    def _range(self, prefix: str) -> dict[str, str]:
        first = f"{self._root}{prefix}".encode()
        return {"key": _text(first), "range_end": _text(first[:-1] + bytes([first[-1] + 1]))}

    def _entry(self, kv: dict[str, str]) -> Entry:
        key = b64decode(kv["key"]).decode().removeprefix(self._root)
        value = b64decode(kv.get("value", ""))
        return Entry(key, value, int(kv["create_revision"]), int(kv["mod_revision"]))

    def _request(self, write: Write) -> dict[str, Any]:
        if write.value is None:
            return {"request_delete_range": {"key": self._key(write.key)}}
        lease = NO_LEASE if write.lease is None else str(write.lease)
        return {"request_put": {"key": self._key(write.key), "value": _text(write.value), "lease": lease}}

    def _change(self, event: dict[str, Any]) -> tuple[str, bytes | None]:
        key = b64decode(event["kv"]["key"]).decode().removeprefix(self._root)
        return key, None if event.get("type") == "DELETE" else b64decode(event["kv"].get("value", ""))

    async def _ask(self, path: str, body: dict[str, Any], *, is_write: bool = False) -> dict[str, Any]:
        """Ask one member after the other; a write that may have arrived is not repeated."""
        reason = "no member answers"
        try:
            async with asyncio.timeout(REQUEST_S):
                while True:
                    try:
                        return await self._ask_member(path, body)
                    except aiohttp.ClientConnectorError as error:  # the request was not sent
                        reason = str(error)
                    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                        reason = str(error) or reason
                        if is_write:
                            raise UnavailableError(self._name, reason, uncertain=True) from error
                    self._member += 1
                    if self._member % len(self._urls) == 0:
                        await asyncio.sleep(0.1)
        except TimeoutError:
            raise UnavailableError(self._name, reason, uncertain=is_write) from None

    async def _ask_member(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Ask the present member; ValueError with etcd's message if it refuses."""
        async with asyncio.timeout(ATTEMPT_S), self._session.post(self._url(path, self._member), json=body) as response:
            answer: dict[str, Any] = json.loads(await response.read())
        error = answer.get("error", "")
        if LEASE_NOT_FOUND in str(error):
            raise LeaseExpiredError(int(body.get("ID", 0)))
        if response.status != 200 or error:
            raise ValueError(f"etcd: {error or response.status}")
        return answer

    async def _stream(self, url: str, body: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Yield the results of a request that streams, one JSON object a line, until it is quiet."""
        buffer = bytearray()
        async with self._session.post(url, json=body) as response:
            while True:
                async with asyncio.timeout(QUIET_S):
                    part = await response.content.readany()
                if not part:
                    return
                buffer += part
                *lines, rest = buffer.split(b"\n")
                buffer = bytearray(rest)
                for line in filter(None, lines):
                    yield json.loads(line)["result"]

    def _url(self, path: str, member: int) -> str:
        return self._urls[member % len(self._urls)] + path


def _text(value: bytes) -> str:
    return b64encode(value).decode()


def _revision(answer: dict[str, Any]) -> int:
    return int(answer["header"]["revision"])


def _modified(event: dict[str, Any]) -> int:
    return int(event["kv"]["mod_revision"])
