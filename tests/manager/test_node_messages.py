"""Messages between managers and nodes: their form, and versions that differ."""

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from lbmux.manager import node_messages
from lbmux.manager.documents import Announcement, RouteOverride, StoredOverride, StoredOverrides
from lbmux.manager.node_messages import (
    Alive,
    Answer,
    Ask,
    Forget,
    Hello,
    Message,
    More,
    ProtocolError,
    Refused,
    Report,
    Stale,
    State,
    common_protocol,
    encode_message,
    pack_file,
    parse_message,
    unpack_file,
)

RECORDED = [Path(__file__).with_name(f"messages_{protocol}.jsonl") for protocol in (1, 2, 3)]
"""Messages as the first version of each protocol sent them: those of 1, and those that 2 and 3 added or changed."""
RECORDED_LINES = [line for path in RECORDED for line in path.read_text().splitlines()]
DRAIN = StoredOverride(service="web", backend="b1", admin_state="drain", since=1.0, by="alice", until=2.5)
WITHDRAWN = RouteOverride(
    vip=IPv4Address("192.0.2.1"), announcement=Announcement(held=True), since=1.0, by="alice", until=2.5
)  # fmt: skip
MESSAGES: list[Message] = [
    Hello(protocols=(1,), role="mux", version="0.1", epoch=3, revision=2, overrides=1, digest="00ff"),
    State(pool="p", epoch=3, revision=2, digest="00ff", file="eJwDAAAAAAE=", overrides=StoredOverrides(version=1)),
    State(
        pool="p", epoch=3, revision=2, digest="00ff", file=None,
        overrides=StoredOverrides(version=2, overrides=(DRAIN,)),
    ),
    Report(revision=2, overrides=1),
    Report(revision=2, overrides=1, refused="table full"),
    Stale(epoch=9),
    Alive(),
    Refused(reason="no common protocol"),
    Report(revision=3, overrides=1, refused="table full", in_force=2),
    Ask(id=7, line='{"command": "runtime", "version": 1}\n'),
    Answer(id=7, line='{"version": 1, "ok": true}\n'),
    Answer(id=7, line=None),
    More(id=7),
    Forget(id=7),
    Alive(pool="p"),
    State(
        pool="p", epoch=3, revision=2, digest="00ff", file=None,
        overrides=StoredOverrides(version=3, routes=(WITHDRAWN,)),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), [*zip(RECORDED_LINES, MESSAGES, strict=True)])
def test_recorded_messages_are_understood(text: str, message: Message) -> None:
    assert parse_message(text, "p") == message


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_of_a_newer_version_is_understood(message: Message) -> None:
    text = message.model_dump_json()
    assert parse_message(text, "p") == parse_message(text[:-1] + ', "a_new_field": [1]}', "p") == message


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"kind": "order"}', '{"kind": "report"}', "\\x00"])
def test_what_is_not_a_message(text: str) -> None:
    with pytest.raises(ProtocolError, match="not a message"):
        parse_message(text, "p")


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_of_another_pool_is_refused(message: Message) -> None:
    assert parse_message(encode_message(message, "p"), "p") == message.model_copy(update={"pool": "p"})
    with pytest.raises(ProtocolError, match=rf"\({message.kind}\) of pool q: this side belongs to pool p"):
        parse_message(encode_message(message, "q"), "p")


def test_the_highest_common_protocol_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_messages, "PROTOCOLS", (1, 2))
    assert (common_protocol((1,)), common_protocol((1, 2, 3))) == (1, 2)
    with pytest.raises(ProtocolError, match="this side speaks 1, 2, the other 3"):
        common_protocol((3,))


def test_a_file_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert unpack_file(pack_file(b"services: []\n")) == b"services: []\n"
    for damaged in ("?", "AAAA"):
        with pytest.raises(ProtocolError, match="is damaged"):
            unpack_file(damaged)
    monkeypatch.setattr(node_messages, "MAX_BYTES", 10)
    with pytest.raises(ProtocolError, match="longer than the limit of 10"):
        unpack_file(pack_file(b"x" * 11))
