"""A process on a terminal of its own: keys in, what it writes out."""

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable
from typing import cast

TOP = [sys.executable, "-m", "lbmux.cli.main", "top"]


class Terminal:
    """A process on a terminal of its own."""

    def __init__(self, command: list[str]) -> None:
        self._side, other = pty.openpty()
        environment = dict(os.environ) | {"TERM": "xterm", "COLUMNS": "120", "LINES": "30"}
        self.process = subprocess.Popen(command, stdin=other, stdout=other, stderr=other, env=environment)
        os.close(other)
        self._text = ""

    def press(self, keys: str) -> None:
        os.write(self._side, keys.encode())

    def shows(self, *texts: str) -> None:
        """Wait until all of it has been written since the last time."""
        self._until(lambda text: all(one in text for one in texts), texts)

    def matches(self, pattern: str) -> re.Match[str]:
        """Wait until this has been written since the last time, colours left out."""

        def find(text: str) -> re.Match[str] | None:
            return re.search(pattern, re.sub(r"\x1b\[[\d;]*m", "", text))

        return cast(re.Match[str], self._until(find, pattern))

    def _until(self, holds: Callable[[str], object], what: object) -> object:
        deadline = time.monotonic() + 20
        while not (there := holds(self._text)):
            assert time.monotonic() < deadline, (what, self._text[-2000:])
            if select.select([self._side], [], [], 0.1)[0]:
                self._text += os.read(self._side, 65536).decode(errors="replace")
        self._text = ""
        return there

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._side)
