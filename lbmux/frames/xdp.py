"""A program on an interface, with its tables: attached, swapped in place, and left to run without this process.

The kernel's driver.  Native where the interface's driver can, generic else.  What is attached is pinned
(lbmux.targets.bpf.pins): a later process finds it and takes over, with every flow.
"""

import errno
import os
import socket
import threading
from collections.abc import Collection, Iterable, Mapping
from typing import Literal, cast

from lbmux.datapath.tables import Sizes
from lbmux.errors import SetupError
from lbmux.targets.bpf import kernel_clock, objects, pins, refusal, syscall
from lbmux.targets.bpf.maps import KernelTables, Pinned
from lbmux.targets.bpf.syscall import Attach, BpfError, Loaded
from lbmux.targets.regions import Tables

Mode = Literal["native", "generic", "tcx"]
FLAGS: dict[Mode, int] = {"native": syscall.XDP_NATIVE, "generic": syscall.XDP_GENERIC, "tcx": 0}
FINAL = (errno.EPERM, errno.EBUSY, errno.EEXIST, errno.ENODEV)
"""Refusals that another mode would meet as well."""


class Kernel:
    """The kernel's part of a mux or an agent on one interface.

    ``tables`` are those in force where they are of these sizes (``adopted``), else new ones; ``previous`` are then
    those in force until ``attach``.  ``attach`` is called once the tables are filled.
    """

    def __init__(self, interface: str, sizes: Sizes, role: str = "mux") -> None:
        """SetupError or BpfError where it cannot be had: no right, an old kernel, no such interface."""
        self.interface = interface
        self.index = _index(interface)
        self.modes: dict[Attach, Mode] = {}
        self.xdp_modes: tuple[Mode, ...] = ("native", "generic")
        """In which to try to attach XDP programs, the best first."""
        self.native_refused = ""
        """Why it is not the best of them; the kernel's words."""
        self.loaded: dict[Attach, Loaded] = {}
        self.previous: Pinned | None = None
        self.egress_refused: dict[int, BpfError] = {}
        """Interfaces, by index, that ``reach`` asked for and whose egress the kernel refused."""
        self._egress: Collection[int] = ()
        self._running: dict[Attach, int] = {}
        """The program that is attached at each place: the usual one, or a watched one."""
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

    def _remove_stale_links(self) -> None:
        """Of an interface of this name that is gone."""
        for path, _ in self.pins.links().values():
            if _linked(path) != self.index:
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
        """Compile and verify programs by name, which takes the most time; they see no packets yet."""
        assert self.kernel_tables is not None
        objects.prepare([*programs.values(), kernel_clock.PROGRAM])
        for place, name in programs.items():
            if place not in self.loaded:
                self.loaded[place] = self.kernel_tables.load(name, place)

    def load_beside(
        self, programs: Mapping[Attach, str], more: Mapping[str, int], rings: Mapping[str, int]
    ) -> dict[Attach, Loaded]:
        """Programs on the same tables that may be swapped for those attached; ``more`` and ``rings`` are what they have
        beside them (KernelTables.load).  Whoever asked closes their descriptors."""
        assert self.kernel_tables is not None
        objects.prepare(programs.values())
        loaded = dict[Attach, Loaded]()
        try:
            for place, name in programs.items():
                loaded[place] = self.kernel_tables.load(name, place, more=more, rings=rings)
        except BaseException:
            for one in loaded.values():
                os.close(one.descriptor)
            raise
        return loaded

    def swap(self, place: Attach, loaded: Loaded) -> None:
        """Put a program in the place of the one that is attached there; SetupError where none is any more."""
        links = self.pins.links()
        if place not in links:
            raise SetupError(f"interface {self.interface}", "the program was taken off", "start the daemon again")
        with self._lock:
            _update(links[place][0], loaded.descriptor)
            self._running[place] = loaded.descriptor
            if place is Attach.TCX_EGRESS:
                self._update_egress()

    def reach(self, indices: Collection[int]) -> None:
        """Have the egress program at these interfaces too: from now on, or from ``attach`` on.

        It stays where it was until the interface is gone: a link that flaps loses its routes, and gets them back before
        anyone hears of it.
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
        """The running egress program is at every other interface that had one; links of vanished interfaces go."""
        for index, path in self.pins.egress_links().items():
            if _linked(path) == index:
                _update(path, self._running[Attach.TCX_EGRESS])
            else:
                path.unlink()

    def attach(self, programs: Mapping[Attach, str]) -> None:
        """Let programs see packets from now on, loaded if they are not; one that is attached is swapped in place."""
        assert self.kernel_tables is not None
        self.load(programs)
        if self._generation is None:
            self._generation = self.pins.new_generation()
            self.kernel_tables.pin(self._generation)
        for place, loaded in self.loaded.items():
            self.pins.pin_program(self._generation, place, loaded.descriptor)
        with self._lock:
            self._attach_all()
        kept = {syscall.program_id(loaded.descriptor) for loaded in self.loaded.values()}
        self.pins.remove_all_but(self._generation, kept)

    def _attach_all(self) -> None:
        """Egress first: nothing comes in while a reply could leave untranslated."""
        links = self.pins.links()
        for place, loaded in sorted(self.loaded.items(), key=lambda one: one[0] is Attach.XDP):
            program = self._running.setdefault(place, loaded.descriptor)
            if place in links:
                path, mode = links[place]
                self.modes[place] = cast(Mode, mode)
                if place is Attach.XDP and mode != self.xdp_modes[0]:
                    self.native_refused = f"an earlier run attached it as {mode}: `lbmux detach` lets the next one try"
                _update(path, program)
            else:
                self.modes[place] = self._link(place, program)
            if place is Attach.TCX_EGRESS:
                self._attach_egress()

    def reattach(self) -> None:
        """Attach to the interface of this name, which was recreated.  SetupError, BpfError."""
        with self._lock:
            self.index = _index(self.interface)
            self._remove_stale_links()
            self._attach_all()

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
        """Whether all programs are where ``attach`` put them: who may do that may take them off, or the interface."""
        links = self.pins.links()
        return all(place in links and _linked(links[place][0]) == self.index for place in self.loaded)

    def close(self) -> None:
        """Let go of it: the programs run on."""
        for loaded in self.loaded.values():
            os.close(loaded.descriptor)
        self.loaded = {}
        if self.kernel_tables is not None:
            self.kernel_tables.close()
        if self.previous is not None:
            self.previous.close()

    def detach(self) -> None:
        """Take the programs off, and remove the tables."""
        self.pins.remove()
        self.close()


def detach(interface: str, roles: Iterable[str] = pins.ROLES) -> bool:
    """Take off what a mux and an agent have attached to an interface; whether there was anything."""
    removed = [pins.Pins(pins.directory_of(interface, role)).remove() for role in roles]
    return any(removed)


def _update(path: os.PathLike[str], program: int) -> None:
    link = syscall.open_pinned(path)
    try:
        syscall.update_link(link, program)
    finally:
        os.close(link)


def _linked(path: os.PathLike[str]) -> int:
    """The interface of a pinned link; 0 where it is gone."""
    try:
        link = syscall.open_pinned(path)
    except BpfError:  # just taken away
        return 0
    try:
        return syscall.linked_interface(link)
    finally:
        os.close(link)


def _index(interface: str) -> int:
    try:
        return socket.if_nametoindex(interface)
    except OSError as error:
        raise SetupError(f"interface {interface}", "there is none of that name", "`ip link` lists them") from error


def _explained(interface: str, error: BpfError) -> Exception:
    if error.number in (errno.EBUSY, errno.EEXIST):
        hint = "`ip link show` names it; `lbmux detach` takes off one of lbmux'"
        return SetupError(f"interface {interface}", "another XDP program is attached", hint)
    return error
