"""On which host each backend is: an agent may report the backends of its own host only.  Pure."""

from collections.abc import Collection

from lbmux.addresses import Address
from lbmux.config.models import BackendKey, Config
from lbmux.manager.guard_rails import Wanted


class Placement:
    """Follows the configuration; a change of overrides costs little, as there are few."""

    def __init__(self) -> None:
        self._of_files: dict[int, tuple[Config, dict[BackendKey, Address]]] = {}
        """The files that are in force, by their identity: the current one and a canary's base."""
        self._added: dict[BackendKey, Address] = {}

    def configure(self, wanted: Wanted, base: Wanted | None) -> None:
        """Take the wanted state, and while there is a canary the state that all other nodes have."""
        known, self._of_files = self._of_files, {}
        for config in (one.config for one in (wanted, base) if one is not None):
            if config is not None:
                self._of_files[id(config)] = known.get(id(config)) or (config, _placed(config))
        overrides = wanted.overrides.of
        self._added = {key: one.added.tunnel_to for key, one in overrides.items() if one.added is not None}

    def may_be_on(self, key: BackendKey, hosts: Collection[str]) -> bool:
        """Return whether a backend is on one of these hosts, or not configured because it is being removed."""
        known_hosts = [placed[key] for _, placed in self._of_files.values() if key in placed]
        known_hosts += [self._added[key]] if key in self._added else []
        return not known_hosts or any(str(one) in hosts for one in known_hosts)


def _placed(config: Config) -> dict[BackendKey, Address]:
    return {(service.name, one.name): one.tunnel_to for service in config.services for one in service.backends}
