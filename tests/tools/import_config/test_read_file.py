"""Files of other load balancers: each key is imported or listed, and the result is a valid configuration."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbmux.config.loader import parse
from lbmux.config.models import Config
from lbmux.errors import ConfigError
from lbmux.tools.import_config import ipvs_rules, keepalived_syntax, text_protobuf
from lbmux.tools.import_config.entries import Entry
from lbmux.tools.import_config.imported import as_yaml
from lbmux.tools.import_config.read_file import FORMATS, Format, format_of, read

FIXTURES = Path(__file__).with_name("fixtures")
FILES: dict[Format, Path] = {
    "seesaw": FIXTURES / "cluster.pb", "keepalived": FIXTURES / "keepalived.conf", "ipvs": FIXTURES / "ipvs.rules",
}  # fmt: skip
SYNTAX = {"seesaw": text_protobuf.parse, "keepalived": keepalived_syntax.parse, "ipvs": ipvs_rules.parse}
TAKEN = {
    "seesaw": {
        "node", "ipv4", "ipv6", "status", "vserver", "name", "entry_address", "vserver_entry", "protocol", "port",
        "scheduler", "mode", "persistence", "healthcheck", "type", "interval", "timeout", "send", "receive", "code",
        "retries", "tls_verify", "method", "backend", "host", "fqdn", "weight",
    },
    "keepalived": {
        "virtual_server", "virtual_server_group", "192.0.2.3-4", "2001:db8::9-a", "lvs_sched", "lb_algo", "lb_kind",
        "protocol", "virtualhost", "connect_timeout", "retry",
        "delay_before_retry", "delay_loop", "real_server", "weight", "SSL_GET", "enable_sni", "url", "path",
        "status_code", "connect_port", "MISC_CHECK", "misc_path", "misc_timeout", "DNS_CHECK", "name",
    },
    "ipvs": {
        "add-service", "add-server", "tcp-service", "udp-service", "scheduler", "real-server",
        "gatewaying", "ipip", "weight", "tun-type",
    },
}  # fmt: skip
"""Keys that lbmux takes over without a remark in at least one place."""


def entries(kind: Format) -> Iterator[Entry]:
    """Yield all entries of a fixture."""
    pending = [*SYNTAX[kind](FILES[kind].read_text(), FILES[kind])]
    while pending:
        yield (entry := pending.pop())
        pending += entry.block or ()


def covered(kind: Format) -> set[tuple[int, str]]:
    """Return line and key of each entry that is listed, and of all that is inside one that is listed."""
    listed = {(one.line or 0, one.field.rpartition(".")[2]) for one in read(FILES[kind].read_text(), FILES[kind]).left}
    lines = set[tuple[int, str]]()
    pending = [(entry, False) for entry in SYNTAX[kind](FILES[kind].read_text(), FILES[kind])]
    while pending:
        entry, is_inside = pending.pop()
        if is_inside or (entry.line, entry.key) in listed:
            lines.add((entry.line, entry.key))
        pending += [(inner, (entry.line, entry.key) in lines) for inner in entry.block or ()]
    return lines


@pytest.mark.parametrize("kind", FORMATS)
def test_each_key_is_imported_or_listed(kind: Format) -> None:
    neither = {(entry.line, entry.key) for entry in entries(kind)} - covered(kind)
    assert {key for _, key in neither} == TAKEN[kind]


@pytest.mark.parametrize("kind", FORMATS)
def test_the_result_is_valid_and_the_same_as_the_services(kind: Format) -> None:
    imported = read(FILES[kind].read_text(), FILES[kind])
    text = as_yaml(imported, FILES[kind])
    assert parse(text.encode(), Path("imported")) == Config.model_validate(imported.document())
    assert text.count("\n#   ") > 10


@pytest.mark.parametrize("kind", FORMATS)
def test_the_format_is_recognised(kind: Format) -> None:
    assert format_of(FILES[kind].read_text()) == kind


@pytest.mark.parametrize("text", ["", "hello", "services: []"])
def test_another_file_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not one of seesaw, keepalived, ipvs"):
        read(text, Path("f"))


def test_a_file_without_a_service_says_what_it_has() -> None:
    with pytest.raises(ConfigError, match="f: has no service that lbmux can import") as caught:
        read("-A -f 1 -s rr\n", Path("f"))
    assert "f:1: add-service.fwmark-service: lbmux has no firewall marks" in str(caught.value)


@pytest.mark.parametrize("kind", FORMATS)
@given(text=st.text(alphabet="abvz:<>{}[]\"'\\ \n-A#!0.,", max_size=60))
def test_any_text_is_read_or_refused(kind: Format, text: str) -> None:
    try:
        read(text, Path("f"), kind)
    except ConfigError as error:
        assert str(error).startswith("f")
