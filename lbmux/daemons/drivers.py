"""Which driver a mux or an agent runs with: the kernel's where it can be had, else the one in user space."""

import contextlib
import errno
import logging
import socket
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lbmux.datapath.tables import Sizes
from lbmux.errors import LbmuxError, SetupError
from lbmux.frames.xdp import Kernel, Mode, detach
from lbmux.plurals import counted
from lbmux.tables.migration import Rows, move_flows
from lbmux.targets.bpf.syscall import Attach
from lbmux.targets.regions import Tables
from lbmux.targets.stored import StoredTables

log = logging.getLogger(__name__)


class Refused(LbmuxError):
    """The kernel did not take the programs, whose tables were filled already; ``error`` says why."""

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
    """Tables, whose part of them user space has, and what there is in the kernel."""

    role: str
    interface: str
    tables: Tables
    worker: int
    """The number of user space's own part: the last one, after the CPUs'."""
    name: str
    kernel: Kernel | None = None
    programs: Mapping[Attach, str] = field(default_factory=dict)
    detach_on_exit: bool = False
    stored: StoredTables | None = None
    """Where tables of user space outlive this process."""
    _loading: Future[None] | None = field(default=None, init=False)

    @property
    def adopted(self) -> bool:
        """Whether the tables were in force before this process, flows and all."""
        watchdog = self.kernel or self.stored
        return watchdog is not None and watchdog.adopted

    @property
    def previous(self) -> Rows | None:
        """Tables in force that are of another version or other sizes."""
        return self.kernel.previous if self.kernel else self.stored.previous if self.stored else None

    @property
    def stays(self) -> bool:
        """Whether packets are forwarded without this process, too."""
        return self.kernel is not None and not self.detach_on_exit and not self.kernel.pins_end_with

    def begin(self) -> None:
        """Compile and verify beside what else a start has to do: by processes of their own, and in the kernel."""
        if self.kernel is not None:
            beside = ThreadPoolExecutor(1)
            self._loading = beside.submit(self.kernel.load, self.programs)
            beside.shutdown(wait=False)

    def load(self) -> None:
        """Have all at hand for ``start``, so that little happens between what is called last before it and packets."""
        if self._loading is not None:
            with _refusals():
                self._loading.result()

    def start(self) -> None:
        """Let packets in: called when the tables are filled."""
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
        """A program that an earlier run left in the kernel would go on before us, by what it knew."""
        try:
            if detach(self.interface, (self.role,)):
                log.info("took off what an earlier %s had left in the kernel", self.role)
        except (OSError, LbmuxError) as error:
            log.warning("what an earlier %s left in the kernel cannot be taken off: %s", self.role, error)

    def close(self) -> None:
        """Leave the kernel's part running, unless it was to be taken off."""
        if self._loading is not None:
            wait([self._loading])
        if self.kernel is not None:
            if self.detach_on_exit:
                self.kernel.detach()
            else:
                self.kernel.close()
        if self.stored is not None:
            self.stored.close(remove=self.detach_on_exit)

    def describe(self) -> dict[str, object]:
        kernel = self.kernel
        modes = {place.name.lower(): mode for place, mode in kernel.modes.items()} if kernel else {}
        said = {
            "pins_end_with": kernel.pins_end_with if kernel else "",
            "native_refused": kernel.native_refused if kernel else "",
        }
        return {"driver": self.name, "modes": modes, "adopted": self.adopted} | said


def start(driver: Driver, is_agent: bool = False) -> None:
    """Let packets in; the flows of tables before ours are taken along at the last moment, as new ones keep coming."""
    driver.load()
    if driver.previous is not None:
        moved = move_flows(driver.previous, driver.tables, is_agent)
        log.info("tables of another version or other sizes: %s moved", counted(moved, "flow"))
    driver.start()


@contextlib.contextmanager
def alone(role: str, interface: str) -> Iterator[None]:
    """No second mux or agent on an interface of this network namespace: it would take the first one's tables over.

    SetupError where there is one.  An abstract socket's name is the namespace's, and goes with its process.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind(f"\0lbmux-{role}-{interface}")
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            hint = "end that one first, or name another by -i"
            raise SetupError(f"interface {interface}", f"another {role} runs there", hint) from error
        yield


MODES: Mapping[str, tuple[Mode, ...]] = {"native": ("native", "generic"), "generic": ("generic",)}
POSSIBLE = Path("/sys/devices/system/cpu/possible")
MOST_CPUS = {"mux": 256, "agent": 48}
"""An agent's program looks for a reply's flow in the part of every CPU: of more than these the verifier would not
follow it.  A mux's does not."""


def cpus(role: str) -> int:
    """CPUs that there may ever be: a kernel program runs with any of their numbers.  SetupError for too many."""
    count = int(POSSIBLE.read_text().strip().rpartition("-")[2]) + 1
    if count > MOST_CPUS[role]:
        reason = f"the kernel's driver of the {role} works with {MOST_CPUS[role]} at most"
        raise SetupError(f"{count} CPUs", reason, "forward in user space, by --driver, or boot with possible_cpus=")
    return count


PINS_END = (
    "forwarding in the kernel ends with %s: /sys/fs/bpf is not the machine's own."
    " Use `nsenter --net=FILE` rather than `ip netns exec`, or mount the host's /sys/fs/bpf into the container"
)


def _say(interface: str, fallback: str, error: LbmuxError) -> None:
    log.warning("no XDP on %s, so %s is the driver: %s", interface, fallback, str(error).splitlines()[0])


async def with_fallback(
    wanted: str, fallback: str, interface: str, serve: Callable[[str], Coroutine[Any, Any, None]]
) -> None:
    """``serve`` with a driver: where ``auto`` meets a kernel that refuses the programs, again with ``fallback``."""
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
    """Which driver a role is to run with.

    ``wanted``: a driver's name, or ``auto`` for the best that works; ``fallback``: the one in user space; ``store``:
    the file that keeps the tables of user space, if any does.
    """

    role: str
    interface: str
    wanted: str
    fallback: str
    programs: Mapping[Attach, str]
    detach_on_exit: bool = False
    xdp_mode: str = "native"
    store: Path | None = None


@contextlib.contextmanager
def choose(choice: DriverChoice, sizes: Callable[[int], Sizes]) -> Iterator[Driver]:
    """The driver; ``sizes`` gives the tables' sizes for a number of workers.

    Raises where ``xdp`` is wanted by name and cannot be had.
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
        kernel = Kernel(interface, sizes(cpus(role) + 1), role)
    except LbmuxError as error:
        if choice.wanted == "xdp":
            raise
        _say(interface, choice.fallback, error)
        return None
    kernel.xdp_modes = MODES[choice.xdp_mode]
    if kernel.pins_end_with and not choice.detach_on_exit:
        log.warning(PINS_END, kernel.pins_end_with)
    return Driver(role, interface, kernel.tables, cpus(role), "xdp", kernel, choice.programs, choice.detach_on_exit)


def _in_user_space(choice: DriverChoice, sizes: Sizes) -> Driver:
    stored = StoredTables(choice.store, sizes) if choice.store else None
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
