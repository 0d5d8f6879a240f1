"""The kernel driver: attaches programs with their tables to an interface, replaces them, and leaves them running.

XDP is native if the interface's driver supports it, else generic. Attached programs are pinned
(lbmux.targets.bpf.pins), so a later process finds them and takes over with every flow.
"""

import errno
import os
import socket
import threading
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Literal, cast

from lbmux.datapath.tables import Sizes
from lbmux.errors import SetupError
from lbmux.targets.bpf import kernel_clock, objects, pins, refusal, syscall
from lbmux.targets.bpf.maps import AGENT_SLOT, MUX_SLOT, KernelTables, Pinned
from lbmux.targets.bpf.syscall import Attach, BpfError, Loaded
from lbmux.targets.regions import Tables

Mode = Literal["native", "generic", "tcx", "behind_mux"]
FLAGS: dict[Mode, int] = {"native": syscall.XDP_NATIVE, "generic": syscall.XDP_GENERIC, "tcx": 0}
FINAL = (errno.EPERM, errno.EBUSY, errno.EEXIST, errno.ENODEV)
"""Errors that would also occur in another mode."""
GATE = "gate_xdp"
GATED = ("mux_xdp", "edge_mux_xdp")
"""The program that stands before a mux's while the mux is overloaded, and those that it can stand before."""


class Kernel:
    """The kernel part of a mux or an agent on one interface.

    ``tables`` are the pinned tables if they have these sizes (``adopted``). Otherwise they are new, and ``previous``
    are the pinned tables, which stay in force until ``attach``. Call ``attach`` when the tables are filled.
    """

    def __init__(self, interface: str, sizes: Sizes, role: str = "mux") -> None:
        """Raise SetupError or BpfError if this is not possible: no permission, an old kernel, no such interface."""
        self.interface = interface
        self.index = _index(interface)
        self.modes: dict[Attach, Mode] = {}
        self.xdp_modes: tuple[Mode, ...] = ("native", "generic")
        """The modes in which to try to attach XDP programs, best first."""
        self.native_refused = ""
        """The kernel's reason for refusing the best mode."""
        self.loaded: dict[Attach, Loaded] = {}
        self.previous: Pinned | None = None
        self.egress_refused: dict[int, BpfError] = {}
        """Errors by index of interfaces where the kernel refused the egress program."""
        self._egress: Collection[int] = ()
        self._slot: int | None = None
        self._gate: Loaded | None = None
        self._gate_slot: int | None = None
        self._is_gated = False
        self._running: dict[Attach, int] = {}
        """The program at each attach point: the usual one, or the one that also records frames."""
        self._lock = threading.RLock()  # trace and route changes come from different threads
        pins.mount()
        self.pins_end_with = pins.lifetime_limit()
        self.pins = pins.Pins(pins.directory_of(interface, role))
        self._remove_stale_links()
        self._generation = self.pins.in_force()
        self.kernel_tables = self._adopt(sizes)
        self.adopted = self.kernel_tables is not None
        if self.kernel_tables is None:
            self.kernel_tables = KernelTables.create(sizes)
            self._generation = None

    def has_agent(self) -> None:
        """Prepare for an edge's mux, whose programs call the agent's, before ``load``. Raise BpfError on refusal."""
        self._slot = pins.open_slot(self.interface)

    def _rings(self, more: Mapping[str, int] | None = None) -> dict[str, int]:
        """Return the maps that programs pass to helpers, by symbol."""
        return {**(more or {}), **({AGENT_SLOT: self._slot} if self._slot is not None else {})}

    def _remove_stale_links(self) -> None:
        """Remove pinned links of interfaces that no longer exist."""
        for path, _ in self.pins.links().values():
            if not pins.is_slot(path) and _linked(path) != self.index:
                path.unlink()
        for index, path in self.pins.egress_links().items():
            if _linked(path) != index:
                path.unlink()

    def _adopt(self, sizes: Sizes) -> KernelTables | None:
        pinned = Pinned.open(self._generation) if self._generation else None
        if pinned is None:
            return None
        adopted = pinned.adopt(sizes)
        if adopted is None:
            self.previous = pinned
        return adopted

    @property
    def tables(self) -> Tables:
        assert self.kernel_tables is not None
        return self.kernel_tables.tables

    def load(self, programs: Mapping[Attach, str]) -> None:
        """Compile and verify programs by name, the slowest step. They do not see packets yet."""
        assert self.kernel_tables is not None
        has_gate = programs.get(Attach.XDP) in GATED
        objects.prepare([*programs.values(), kernel_clock.PROGRAM, *([GATE] if has_gate else [])])
        for place, name in programs.items():
            if place not in self.loaded:
                self.loaded[place] = self.kernel_tables.load(name, place, rings=self._rings())
        if has_gate and self._gate is None:
            self._gate_slot = syscall.create_program_slot("lbmux_gated")
            self._gate = self.kernel_tables.load(GATE, Attach.XDP, rings={MUX_SLOT: self._gate_slot})

    def load_beside(
        self, programs: Mapping[Attach, str], more: Mapping[str, int], rings: Mapping[str, int]
    ) -> dict[Attach, Loaded]:
        """Load programs for the same tables that can replace the attached ones. The caller closes their descriptors.

        ``more`` and ``rings`` are their further maps (KernelTables.load).
        """
        assert self.kernel_tables is not None
        objects.prepare(programs.values())
        loaded = dict[Attach, Loaded]()
        try:
            for place, name in programs.items():
                loaded[place] = self.kernel_tables.load(name, place, more=more, rings=self._rings(rings))
        except BaseException:
            for one in loaded.values():
                os.close(one.descriptor)
            raise
        return loaded

    def swap(self, place: Attach, loaded: Loaded) -> None:
        """Replace the program at an attach point. Raise SetupError if none is attached."""
        links = self.pins.links()
        if place not in links:
            raise SetupError(f"interface {self.interface}", "the program has been detached", "restart the daemon")
        with self._lock:
            self._running[place] = loaded.descriptor
            _update(links[place][0], self._first(place))
            if place is Attach.TCX_EGRESS:
                self._update_egress()

    def gate(self, wanted: bool) -> None:
        """Put the gate before the mux's program, or take it away. Raise SetupError if nothing is attached."""
        links = self.pins.links()
        if Attach.XDP not in links:
            raise SetupError(f"interface {self.interface}", "the program has been detached", "restart the daemon")
        with self._lock:
            self._is_gated = wanted
            _update(links[Attach.XDP][0], self._first(Attach.XDP))

    def _first(self, place: Attach) -> int:
        """Return the program that gets frames first: the gate, which then calls the one that is running, or that."""
        if place is not Attach.XDP or not self._is_gated:
            return self._running[place]
        assert self._gate is not None and self._gate_slot is not None
        syscall.fill_program_slot(self._gate_slot, self._running[place])
        return self._gate.descriptor

    def reach(self, indices: Collection[int]) -> None:
        """Attach the egress program to these interfaces too, now or in ``attach``.

        It stays on interfaces that are no longer listed: a link that flaps loses its routes for a moment.
        """
        with self._lock:
            self._egress = [index for index in indices if index != self.index]
            if Attach.TCX_EGRESS in self._running:
                self._attach_egress()

    def _attach_egress(self) -> None:
        self._update_egress()
        links = self.pins.egress_links()
        self.egress_refused = {}
        for index in self._egress:
            if index not in links:
                try:
                    self._pin_egress(index)
                except BpfError as error:
                    self.egress_refused[index] = error

    def _pin_egress(self, index: int) -> None:
        link = syscall.create_link(self._running[Attach.TCX_EGRESS], index, Attach.TCX_EGRESS)
        try:
            syscall.pin(self.pins.egress_path(index), link)
        finally:
            os.close(link)

    def _update_egress(self) -> None:
        """Update the egress program at every other interface. Remove the links of interfaces that are gone."""
        for index, path in self.pins.egress_links().items():
            if _linked(path) == index:
                _update(path, self._running[Attach.TCX_EGRESS])
            else:
                path.unlink()

    def attach(self, programs: Mapping[Attach, str]) -> None:
        """Attach programs, loading them if necessary. Programs that are attached already are replaced."""
        assert self.kernel_tables is not None
        self.load(programs)
        if self._generation is None:
            self._generation = self.pins.new_generation()
            self.kernel_tables.pin(self._generation)
        for place, loaded in self.loaded.items():
            self.pins.pin_program(self._generation, place, loaded.descriptor)
        if self._gate is not None:
            self.pins.pin_program(self._generation, Attach.XDP, self._gate.descriptor)
        with self._lock:
            self._attach_all()
        if self._gate_slot is not None:  # an earlier process's gate, which needs its slot, is detached now
            self.pins.pin_gate_slot(self._generation, self._gate_slot)
        gates = [] if self._gate is None else [self._gate]
        ids = {syscall.program_id(loaded.descriptor) for loaded in [*self.loaded.values(), *gates]}
        self.pins.remove_all_but(self._generation, ids)

    def _attach_all(self) -> None:
        """Attach egress programs first: no packet may arrive while a reply could leave untranslated."""
        links = self.pins.links()
        for place, loaded in sorted(self.loaded.items(), key=lambda one: one[0] is Attach.XDP):
            self._running.setdefault(place, loaded.descriptor)
            program = self._first(place)
            if place in links:
                path, mode = links[place]
                self.modes[place] = cast(Mode, mode)
                if place is Attach.XDP and mode != self.xdp_modes[0]:
                    self.native_refused = f"an earlier run attached it in {mode} mode; `lbmux detach`, then restart"
                _update(path, program)
            else:
                self.modes[place] = self._link(place, program)
            if place is Attach.TCX_EGRESS:
                self._attach_egress()

    def reattach(self) -> None:
        """Attach to the recreated interface of this name. Raise SetupError or BpfError if that fails."""
        with self._lock:
            self.index = _index(self.interface)
            self._remove_stale_links()
            self._leave_egress()
            self._attach_all()

    def _leave_egress(self) -> None:
        """Detach the egress program that ``reach`` attached here while the interface was being recreated.

        The kernel attaches a program only once to an interface (EEXIST).
        """
        self._egress = [index for index in self._egress if index != self.index]
        self.pins.detach_egress(self.index)

    def _link(self, place: Attach, program: int) -> Mode:
        modes: tuple[Mode, ...] = self.xdp_modes if place is Attach.XDP else ("tcx",)
        refused: BpfError | None = None
        for mode in modes:
            try:
                link = syscall.create_link(program, self.index, place, FLAGS[mode])
            except BpfError as error:
                refused = refused or error
                self.native_refused = refusal.reason(program, self.index, FLAGS[mode]) or os.strerror(error.number)
                if error.number in FINAL:
                    break
                continue
            syscall.pin(self.pins.link_path(place, mode), link)
            os.close(link)
            return mode
        assert refused is not None
        raise _explained(self.interface, refused) from refused

    def is_attached(self) -> bool:
        """Return whether all programs are still attached: others may detach them or remove the interface."""
        links = self.pins.links()
        return all(place in links and self._is_linked(links[place][0]) for place in self.loaded)

    def _is_linked(self, path: Path) -> bool:
        return _is_filled(path) if pins.is_slot(path) else _linked(path) == self.index

    def close(self) -> None:
        """Close all descriptors. The programs keep running."""
        for loaded in self.loaded.values():
            os.close(loaded.descriptor)
        self.loaded = {}
        gate = [] if self._gate is None else [self._gate.descriptor]
        for descriptor in (*gate, self._gate_slot, self._slot):
            if descriptor is not None:
                os.close(descriptor)
        self._gate = self._gate_slot = self._slot = None
        if self.kernel_tables is not None:
            self.kernel_tables.close()
        if self.previous is not None:
            self.previous.close()

    def detach(self) -> None:
        """Detach the programs and remove the tables."""
        self.pins.remove()
        self.close()


def detach(interface: str, roles: Iterable[str] = pins.ROLES) -> bool:
    """Detach the programs of a mux and an agent from an interface. Return whether there were any."""
    removed = [pins.Pins(pins.directory_of(interface, role)).remove() for role in roles]
    return any(removed)


def _update(path: Path, program: int) -> None:
    link = syscall.open_pinned(path)
    try:
        syscall.fill_program_slot(link, program) if pins.is_slot(path) else syscall.update_link(link, program)
    finally:
        os.close(link)


def _is_filled(path: Path) -> bool:
    slot = syscall.open_pinned(path)
    try:
        return syscall.program_in_slot(slot) != 0
    finally:
        os.close(slot)


def _linked(path: Path) -> int:
    """Return the interface index of a pinned link, or 0 if it is gone."""
    try:
        link = syscall.open_pinned(path)
    except BpfError:  # just removed
        return 0
    try:
        return syscall.linked_interface(link)
    finally:
        os.close(link)


def _index(interface: str) -> int:
    try:
        return socket.if_nametoindex(interface)
    except OSError as error:
        raise SetupError(f"interface {interface}", "not found", "`ip link` lists them") from error


def _explained(interface: str, error: BpfError) -> Exception:
    if error.number in (errno.EBUSY, errno.EEXIST):
        hint = "`ip link show` names it; `lbmux detach` removes one of lbmux's"
        return SetupError(f"interface {interface}", "another XDP program is attached", hint)
    return error
