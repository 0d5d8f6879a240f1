"""A control client that knows only the wire format: what a script without lbmux would send and get."""

import json
import socket
from pathlib import Path
from typing import Any

from lbmux.errors import ControlError


def ask(path: Path, command: str, **arguments: Any) -> Any:
    """The result of a request as plain JSON, the first one of a stream; ControlError as the client raises it."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        try:
            connection.connect(str(path))
        except OSError as error:
            raise ControlError(path, str(error)) from error
        connection.sendall(json.dumps({"command": command, **arguments}).encode() + b"\n")
        line = connection.makefile("rb").readline()
    if not line:
        raise ControlError(path, "the daemon closed the connection")
    answer = json.loads(line)
    if not answer["ok"]:
        raise ControlError(path, answer["error"], tuple(answer.get("problems", ())))
    return answer["result"]
