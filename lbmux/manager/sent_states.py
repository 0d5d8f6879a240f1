"""Selects what each node gets of the pool's state: muxes and edges get all of it, agents the part of their host."""

from dataclasses import dataclass, field
from functools import cached_property

from pydantic.main import IncEx

from lbmux.manager.documents import StoredOverrides
from lbmux.manager.host_slices import HostFiles, HostSlices
from lbmux.manager.manager_state import Manager
from lbmux.manager.node_messages import State, pack_file
from lbmux.manager.pool_state import PoolState
from lbmux.manager.revisions import digest
from lbmux.manager.rollout_order import gone

NOT_NEEDED: IncEx = {"__all__": {"deadline"}}
NOT_SENT: IncEx = {"overrides": {"overrides": NOT_NEEDED}}
"""Fields that nodes do not need."""
NOT_SENT_BEFORE_3: IncEx = {"overrides": {"overrides": NOT_NEEDED, "routes": True}}
"""Fields that nodes of earlier protocols do not know either."""


@dataclass(frozen=True)
class Sent:
    """One state for one node or many; ``key`` differs if the node's message would."""

    pool: str
    epoch: int
    revision: int
    text: bytes
    stored: StoredOverrides
    _messages: dict[tuple[bool, bool], str] = field(default_factory=dict, init=False)

    @property
    def key(self) -> tuple[int, int, int, str]:
        return self.epoch, self.revision, self.stored.version, self.digest

    @cached_property
    def digest(self) -> str:
        """The file's digest."""
        return digest(self.text)

    @cached_property
    def _file(self) -> str:
        return pack_file(self.text)

    def message(self, known: str, protocol: int) -> str:
        """Return the message for a node that has the file with digest ``known``; one for many nodes is made once."""
        key = known == self.digest, protocol < 3
        if key not in self._messages:
            self._messages[key] = self._encoded(*key)
        return self._messages[key]

    def _encoded(self, has_file: bool, is_old: bool) -> str:
        return State(
            pool=self.pool, epoch=self.epoch, revision=self.revision, digest=self.digest,
            file=None if has_file else self._file, overrides=self.stored,
        ).model_dump_json(exclude=NOT_SENT_BEFORE_3 if is_old else NOT_SENT)  # fmt: skip


class SentStates:
    """Makes the messages of one manager; a message for many nodes is made once."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._whole: tuple[PoolState, Sent, Sent] | None = None
        self._files: HostFiles | None = None
        self._slices: tuple[PoolState, HostFiles, HostSlices] | None = None

    def of(self, role: str, node: str, hosts: tuple[str, ...]) -> Sent | None:
        """Return the state for a node; None: there is none yet. ``hosts``: an agent's addresses, if it reports them.

        While a revision soaks, agents get what both revisions need.
        """
        state = self._manager.state
        if not state.revision or (role == "mux" and self._manager.order.holds_muxes):
            return None
        if role == "agent" and hosts:
            text, stored = self._host_slices(state).of(hosts)
            return Sent(self._manager.pool_id, state.epoch, state.revision, text, stored)
        if self._whole is None or self._whole[0] is not state:
            parts = [
                Sent(self._manager.pool_id, state.epoch, one.revision, one.text, one.stored)
                for one in (state, state.base or state)
            ]
            self._whole = state, parts[0], parts[1]
        is_first = state.canary is None or node == state.canary.mux or role == "agent"
        return self._whole[1] if is_first else self._whole[2]

    def _host_slices(self, state: PoolState) -> HostSlices:
        lingering = self._manager.order.lingering
        if state.base is not None:
            keys = {(service.name, backend.name) for service, backend in lingering}
            old = gone(state.base.wanted, state.wanted)
            lingering += tuple((service, one) for service, one in old if (service.name, one.name) not in keys)
        assert state.config is not None  # it has a revision
        if self._files is None or self._files.config is not state.config or self._files.lingering != lingering:
            self._files = HostFiles(state.config, lingering, self._files)
        if self._slices is None or self._slices[0] is not state or self._slices[1] is not self._files:
            self._slices = state, self._files, HostSlices(self._files, state.stored)
        return self._slices[2]
