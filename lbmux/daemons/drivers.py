"""Chooses a mux's or agent's driver: XDP if the kernel accepts the programs, otherwise user space."""

import contextlib
import errno
import logging
import socket
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lbmux.datapath.tables import Sizes
from lbmux.errors import LbmuxError, SetupError
from lbmux.frames.xdp import Kernel, Mode, detach
from lbmux.plurals import counted
from lbmux.tables.abandoned_entries import free, half_done
from lbmux.tables.migration import Rows, move_flows
from lbmux.targets.bpf.syscall import Attach
from lbmux.targets.regions import Tables
from lbmux.targets.stored import StoredTables

log = logging.getLogger(__name__)


class Refused(LbmuxError):
    """The kernel refused the programs after the tables were filled; ``error`` has the reason."""

    error: LbmuxError

    def __str__(self) -> str:
        return str(self.error)


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except LbmuxError as error:
        raise Refused(error) from error


@dataclass
class Driver:
    """The tables, the worker number of user space, and the kernel's programs where there are any."""

    role: str
    interface: str
    tables: Tables
    worker: int
    """User space's number: the last one, after one per CPU."""
    name: str
    kernel: Kernel | None = None
    programs: Mapping[Attach, str] = field(default_factory=dict)
    detach_on_exit: bool = False
    stored: StoredTables | None = None
    """The file in which tables of user space outlive this process."""
    _loading: Future[None] | None = field(default=None, init=False)

    @property
    def adopted(self) -> bool:
        """Whether the tables, with their flows, were in force before this process."""
        watchdog = self.kernel or self.stored
        return watchdog is not None and watchdog.adopted

    @property
    def previous(self) -> Rows | None:
        """Tables in force that have another version or other sizes; their flows have to be moved."""
        return self.kernel.previous if self.kernel else self.stored.previous if self.stored else None

    @property
    def stays(self) -> bool:
        """Whether the kernel keeps forwarding without this process."""
        return self.kernel is not None and not self.detach_on_exit and not self.kernel.pins_end_with

    def begin(self) -> None:
        """Compile and verify the programs in a thread, during the rest of the start."""
        if self.kernel is not None:
            beside = ThreadPoolExecutor(1)
            self._loading = beside.submit(self.kernel.load, self.programs)
            beside.shutdown(wait=False)

    def load(self) -> None:
        """Wait for ``begin``, so that ``start`` takes little time."""
        if self._loading is not None:
            with _refusals():
                self._loading.result()

    def start(self) -> None:
        """Attach the programs; the tables must be filled."""
        if self.kernel is None:
            self._take_over()
            return
        with _refusals():
            self.kernel.attach(self.programs)
        for place, loaded in self.kernel.loaded.items():
            where = f"{self.kernel.interface} ({self.kernel.modes[place]})"
            log.info("%s on %s: %d instructions", self.programs[place], where, loaded.instructions)

        if self.kernel.native_refused:
            log.warning("interface %s: XDP is generic, not native: %s", self.interface, self.kernel.native_refused)

    def _take_over(self) -> None:
        """Detach a program of an earlier run, which would forward by its old tables."""
        try:
            if detach(self.interface, (self.role,)):
                log.info("detached the programs that an earlier %s had left on %s", self.role, self.interface)
        except (OSError, LbmuxError) as error:
            log.warning("cannot detach the programs of an earlier %s: %s", self.role, error)

    def close(self) -> None:
        """Leave the kernel's programs attached, unless they are to be detached on exit."""
        if self._loading is not None:
            wait([self._loading])
        if self.kernel is not None:
            if self.detach_on_exit:
                self.kernel.detach()
            else:
                self.kernel.close()
        if self.stored is not None:
            self.stored.close(remove=self.detach_on_exit)

    def describe(self) -> dict[str, Any]:
        """Return the driver's fields of `lbmux show runtime`."""
        kernel = self.kernel
        modes = {place.name.lower(): mode for place, mode in kernel.modes.items()} if kernel else {}
        kernel_fields = {
            "pins_end_with": kernel.pins_end_with if kernel else "",
            "native_refused": kernel.native_refused if kernel else "",
        }
        return {"driver": self.name, "modes": modes, "adopted": self.adopted} | kernel_fields


def start(driver: Driver, is_agent: bool = False) -> None:
    """Let packets in; flows of previous tables are moved at the last moment, since they keep changing until then."""
    driver.load()
    if driver.adopted:
        _free_abandoned(driver.tables)
    if driver.previous is not None:
        moved = move_flows(driver.previous, driver.tables, is_agent)
        log.info("tables of another version or other sizes: %s moved", counted(moved, "flow"))
    driver.start()


def _free_abandoned(tables: Tables) -> None:
    """Free what the process before this one was writing when it was killed, so that no entry is lost for ever."""
    abandoned = half_done(tables)
    if len(abandoned.places):
        time.sleep(WRITING_S)
        log.info(
            "%s freed that an earlier process left half written", counted(free(tables, abandoned), "entry", "entries")
        )


@contextlib.contextmanager
def alone(role: str, interface: str) -> Iterator[None]:
    """Hold a lock on an interface: a second mux or agent there would take over the first one's tables.

    Raise SetupError if another one holds it. The lock is an abstract socket: it belongs to the network namespace, and
    ends with the process.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind(f"\0lbmux-{role}-{interface}")
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            hint = "stop that one first, or name another interface with -i"
            raise SetupError(f"interface {interface}", f"another {role} runs there", hint) from error
        yield


MODES: Mapping[str, tuple[Mode, ...]] = {
    "native": ("native", "generic"),
    "generic": ("generic",),
    "behind_mux": ("behind_mux",),
}
POSSIBLE = Path("/sys/devices/system/cpu/possible")
WRITING_S = 0.01
"""Seconds after which an entry that has not changed is abandoned: the kernel's programs need less than 1 µs."""
MOST_CPUS = 256
"""Each CPU has its own counters, which the kernel allocates at once."""


def cpus() -> int:
    """Return the number of possible CPUs, each of which may run the kernel program. Raise SetupError for too many."""
    count = int(POSSIBLE.read_text().strip().rpartition("-")[2]) + 1
    if count > MOST_CPUS:
        reason = f"the kernel driver supports at most {MOST_CPUS}"
        raise SetupError(
            f"{count} CPUs", reason, "choose a user-space driver with --driver, or boot with possible_cpus="
        )
    return count


PINS_END = (
    "forwarding in the kernel ends with %s: /sys/fs/bpf is not the host's."
    " Use `nsenter --net=FILE` rather than `ip netns exec`, or mount the host's /sys/fs/bpf into the container"
)


def _say(interface: str, fallback: str, error: LbmuxError) -> None:
    log.warning(
        "XDP is not available on %s; falling back to driver %s: %s", interface, fallback, str(error).splitlines()[0]
    )


async def with_fallback(
    wanted: str, fallback: str, interface: str, serve: Callable[[str], Coroutine[Any, Any, None]]
) -> None:
    """Call ``serve`` with the wanted driver; if that is ``auto`` and the kernel refuses, again with ``fallback``."""
    try:
        await serve(wanted)
        return
    except Refused as refused:
        if wanted != "auto":
            raise
        _say(interface, fallback, refused.error)
    await serve(fallback)


@dataclass(frozen=True)
class DriverChoice:
    """The driver that a role runs with.

    ``wanted``: a driver's name, or ``auto`` for the best that works; ``fallback``: the one in user space; ``store``:
    the file that keeps the tables of user space, if any does; ``has_agent``: an edge's mux, whose program calls the
    agent's.
    """

    role: str
    interface: str
    wanted: str
    fallback: str
    programs: Mapping[Attach, str]
    detach_on_exit: bool = False
    xdp_mode: str = "native"
    store: Path | None = None
    has_agent: bool = False


@contextlib.contextmanager
def choose(choice: DriverChoice, sizes: Callable[[int], Sizes]) -> Iterator[Driver]:
    """Yield the driver; ``sizes`` gives the tables' sizes for a number of workers.

    Raise SetupError if ``xdp`` is requested and not available.
    """
    driver = _in_kernel(choice, sizes) or _in_user_space(choice, sizes(1))
    driver.begin()
    try:
        yield driver
    finally:
        driver.close()


def _in_kernel(choice: DriverChoice, sizes: Callable[[int], Sizes]) -> Driver | None:
    if choice.wanted not in ("auto", "xdp"):
        return None
    role, interface = choice.role, choice.interface
    try:
        kernel = Kernel(interface, sizes(cpus() + 1), role)
    except LbmuxError as error:
        if choice.wanted == "xdp":
            raise
        _say(interface, choice.fallback, error)
        return None
    kernel.xdp_modes = MODES[choice.xdp_mode]
    if choice.has_agent:
        kernel.has_agent()
    if kernel.pins_end_with and not choice.detach_on_exit:
        log.warning(PINS_END, kernel.pins_end_with)
    return Driver(role, interface, kernel.tables, cpus(), "xdp", kernel, choice.programs, choice.detach_on_exit)


def _stored(path: Path, sizes: Sizes) -> StoredTables | None:
    """Return the tables in the file; None if there is no space for it, so that a full disk does not stop the daemon."""
    try:
        return StoredTables(path, sizes)
    except OSError as error:
        log.warning("flow store %s: %s; flows are kept in memory only", path, error.strerror)
        return None


def _in_user_space(choice: DriverChoice, sizes: Sizes) -> Driver:
    stored = _stored(choice.store, sizes) if choice.store else None
    tables = stored.tables if stored else Tables.allocate(sizes)
    return Driver(
        choice.role,
        choice.interface,
        tables,
        0,
        choice.fallback,
        detach_on_exit=choice.detach_on_exit,
        stored=stored,
    )
