"""Puts a map in force at gdnsd, an authoritative DNS server on this machine.

Each map is a directory of its own, and `current` links to the one in force. gdnsd checks a new one first, then hands
its sockets over to a new process (`gdnsdctl replace`): no query is lost, and a map that gdnsd refuses changes nothing.
gdnsd needs only these files: without lbmux it answers by the last map, even after a restart.
"""

import shutil
import subprocess
from pathlib import Path

from lbmux.addresses import Address
from lbmux.errors import SetupError
from lbmux.steering.gdnsd_files import Server, files
from lbmux.steering.steering_map import SteeringMap, write

KEPT = 2
"""Number of maps that are kept: the one in force, and the previous one."""
TIMEOUT_S = 60.0
CURRENT = "current"


def publish(steering_map: SteeringMap, directory: Path, listen: tuple[Address, ...], port: int = 53) -> int:
    """Publish a map and return its number. If gdnsd does not run, it uses the map at its next start.

    Raise SetupError if gdnsd refuses it: then the previous map stays in force.
    """
    numbers = _numbers(directory)
    number = max(numbers, default=0) + 1
    new, link = directory / f"map-{number}", directory / CURRENT
    before = link.readlink() if link.is_symlink() else None
    server = Server(listen, port, str(directory.absolute() / "run"), str(directory.absolute() / "state"))
    try:
        for name, text in files(steering_map, server, number).items():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            (new / name).write_text(text)
        write(new / "map.json", steering_map)
        (directory / "state").mkdir(exist_ok=True)
        _run("gdnsd", new, "checkconf")
        _point(link, Path(new.name))
        if _is_running(link):
            _run("gdnsdctl", link, "replace")
    except (OSError, SetupError) as error:
        if before is not None:
            _point(link, before)
        shutil.rmtree(new, ignore_errors=True)
        if isinstance(error, SetupError):
            raise
        raise SetupError(str(directory), str(error), "the previous map stays in force") from error
    for old in sorted(numbers)[: 1 - KEPT]:
        shutil.rmtree(directory / f"map-{old}", ignore_errors=True)
    return number


def _numbers(directory: Path) -> list[int]:
    names = [path.name.removeprefix("map-") for path in directory.glob("map-*")]
    return [int(name) for name in names if name.isdecimal()]


def _point(link: Path, target: Path) -> None:
    """Change a link atomically."""
    new = link.with_name(f".{link.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.replace(link)


def _is_running(configuration: Path) -> bool:
    return subprocess.run(["gdnsdctl", "-c", configuration, "status"], capture_output=True, check=False).returncode == 0


def _run(program: str, configuration: Path, verb: str) -> None:
    """Run a program of gdnsd with a configuration directory; raise SetupError with its output."""
    try:
        done = subprocess.run(
            [program, "-c", configuration, verb], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise SetupError(program, str(error), "install gdnsd; the previous map stays in force") from error
    if done.returncode:
        faults = [line for line in done.stderr.splitlines() if line.startswith(("error", "fatal"))]
        raise SetupError(f"{program} {verb}", "; ".join(faults) or done.stderr, "the previous map stays in force")
