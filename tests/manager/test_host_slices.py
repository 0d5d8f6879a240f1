"""What an agent gets of a state: its host's part, which is a valid file."""

from pathlib import Path
from typing import Any

from lbmux.backends.override_commands import Change, add, set_admin_state, set_weight
from lbmux.backends.overrides import with_overrides
from lbmux.config.known_services import parse_known
from lbmux.config.loader import parse
from lbmux.config.models import Config
from lbmux.manager.documents import StoredOverrides
from lbmux.manager.guard_rails import Wanted
from lbmux.manager.host_slices import HostFiles, HostSlices
from lbmux.manager.rollout_order import gone
from lbmux.manager.stored_overrides import Terms, as_overrides, changed

H1, H2, H3 = (f"10.1.{n}.2" for n in (1, 2, 3))


def service(name: str, port: int, *hosts: str, **more: Any) -> dict[str, Any]:
    backends = [{"name": f"{name}{n}", "dip": f"10.9.{port}.{n}", "host": host} for n, host in enumerate(hosts, 1)]
    return {"name": name, "vip": "192.0.2.1", "protocol": "tcp", "port": port, "backends": backends} | more


def config(*services: dict[str, Any]) -> Config:
    document = {"muxes": ["10.0.1.2"], "idle": {"tcp_s": 77}, "maglev": {"size": 251}, "services": list(services)}
    return Config.model_validate(document)


WHOLE = config(
    service("web", 80, H1, H2, health={"kind": "http", "by": "agent"}), service("mail", 25, H2), service("x", 9)
)


def overridden(*changes: Change) -> StoredOverrides:
    stored: StoredOverrides = StoredOverrides(version=7)
    for change in changes:
        stored = StoredOverrides(version=7, overrides=changed(stored.overrides, WHOLE, change, Terms("alice"))[0])
    return stored


def part(stored: StoredOverrides, *hosts: str, lingering: Any = (), whole: Config = WHOLE) -> tuple[Config, Config]:
    """Return what the host's file says, and that with the overrides."""
    text, own = HostSlices(HostFiles(whole, lingering), stored).of(hosts)
    assert own.version == 7
    slice_config = parse(text, Path("slice"))
    return slice_config, with_overrides(slice_config, as_overrides(own.overrides))


def names(slice_config: Config) -> dict[str, list[str]]:
    return {service.name: [one.name for one in service.backends] for service in slice_config.services}


def test_a_host_gets_its_backends_as_they_are_in_the_file() -> None:
    slice_config, _ = part(overridden(), H1)
    assert (
        names(slice_config) == {"web": ["web1"]}
        and slice_config.muxes == WHOLE.muxes
        and slice_config.maglev == WHOLE.maglev
    )
    (web,) = slice_config.services
    assert web == WHOLE.services[0].model_copy(update={"backends": WHOLE.services[0].backends[:1]})
    assert names(part(overridden(), H2)[0]) == {"web": ["web2"], "mail": ["mail1"]}
    assert names(part(overridden(), H1, H2)[0]) == {"web": ["web1", "web2"], "mail": ["mail1"]}
    assert names(part(overridden(), "10.1.99.2")[0]) == {}


def test_overrides_of_other_hosts_are_left_out() -> None:
    added = add("x", {"name": "new", "dip": "10.9.9.9", "host": H3}, 1.0)
    stored = overridden(set_admin_state("remove", "web1", None, 1.0), added)
    assert names(part(stored, H1)[1]) == {"web": []}
    assert names(part(stored, H2)[1]) == {"web": ["web2"], "mail": ["mail1"]}
    assert names(part(stored, H3)[1]) == {"x": ["new"]}


def test_a_backend_that_lingers_is_served() -> None:
    after = config(service("web", 80, H1), service("mail", 25, H2), service("x", 9))
    before, now = Wanted(WHOLE, as_overrides(())), Wanted(after, as_overrides(()))
    assert names(part(overridden(), H2, lingering=tuple(gone(before, now)), whole=after)[0]) == {
        "web": ["web2"], "mail": ["mail1"],
    }  # fmt: skip
    removed = overridden(set_admin_state("remove", "web1", None, 1.0))
    lingering = tuple(gone(before, Wanted(WHOLE, as_overrides(removed.overrides))))
    slice_config, with_overridden = part(removed, H1, lingering=lingering)
    assert names(slice_config) == names(with_overridden) == {"web": ["web1"]}


def test_a_change_of_overrides_keeps_the_files() -> None:
    files = HostFiles(WHOLE)
    before, _ = HostSlices(files, overridden()).of((H1,))
    assert HostSlices(files, overridden(set_weight(5, "web1", None, 0.0))).of((H1,))[0] is before


def test_an_invalid_address_has_no_backends() -> None:
    assert names(part(overridden(), "host1")[0]) == {}


def test_an_agent_gets_its_own_backend_of_a_pool() -> None:
    pooled = [{"name": name, "vip": "192.0.2.1", "protocol": "tcp", "port": port, "pool": "front"}
              for port, name in enumerate(("web", "tls"), 80)]  # fmt: skip
    pools = {"front": [{"name": "b1", "dip": H1}, {"name": "b2", "dip": H2}]}
    whole = Config.model_validate({"pools": pools, "services": pooled})
    part = parse(HostFiles(whole).text((H1,), frozenset()), Path("part"))
    assert [(one.name, [b.name for b in one.backends]) for one in part.services] == [("web", ["b1"]), ("tls", ["b1"])]


def test_files_made_from_earlier_ones_are_those_made_at_once() -> None:
    more = config(service("web", 80, H2, H3), service("new", 81, H1)).services
    grown = WHOLE.model_copy(update={"services": (more[0], *WHOLE.services[1:], more[1])})
    first = HostFiles(WHOLE)
    texts = {host: first.text((host,), frozenset()) for host in (H1, H2, H3)}
    for files in (HostFiles(grown, (), first), HostFiles(WHOLE, (), HostFiles(grown, (), first))):
        fresh = HostFiles(files.config)
        assert all(files.text((host,), frozenset()) == fresh.text((host,), frozenset()) for host in (H1, H2, H3))
    assert {host: HostFiles(WHOLE, (), first).text((host,), frozenset()) for host in texts} == texts


def test_an_agent_reads_only_services_that_changed() -> None:
    first = HostFiles(WHOLE)
    grown = WHOLE.model_copy(update={"services": (*WHOLE.services, *config(service("new", 81, H1)).services)})
    before, after = (
        parse_known(files.text((H1,), frozenset()), Path("part"))
        for files in (first, HostFiles(grown, (), first))
    )  # fmt: skip
    assert after.services[0] is before.services[0] and [one.name for one in after.services] == ["web", "new"]
