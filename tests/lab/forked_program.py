"""What the tests of the fork server run: says what it finds, and ends as it is told."""

import atexit
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import ModuleType


def main() -> None:
    match sys.argv[1:]:
        case ["say"]:
            print(json.dumps(about()))
            print("an error", file=sys.stderr)
        case ["exit", code]:
            sys.exit(int(code))
        case ["end"]:
            atexit.register(print, "exit function")
            threading.Timer(0.05, print, ["thread"]).start()
            sys.modules["remains"] = Remains("remains")
        case ["fail"]:
            raise ValueError("failed")
        case ["wait"]:
            print("waiting", flush=True)
            time.sleep(60)


class Remains(ModuleType):
    """A module that says so when it is taken down."""

    def __del__(self) -> None:
        print("taken down")


def about() -> dict[str, object]:
    return {
        "arguments": sys.argv[1:],
        "command": Path("/proc/self/cmdline").read_bytes().rstrip(b"\0").decode(),
        "parent": os.getppid(),
        "directory": os.getcwd(),
        "environment": dict(os.environ),
        "leads_session": os.getsid(0) == os.getpid(),
        "network": os.stat("/proc/self/ns/net").st_ino,
        "descriptors": sorted(
            int(one) for one in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{one}")
        ),
        "input": os.readlink("/proc/self/fd/0"),
        "interrupt": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
    }


if __name__ == "__main__":
    main()
