"""The desired state that a node has from its managers, and the messages that it accepts.

The node stores the last state on its disk, and starts from it when no manager answers. An epoch lower than the highest
that was seen is refused: it comes from a primary that was replaced (the outage in Ananta, section 6).
"""

import json
import logging
import os
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Literal

from lbmux.config.field_types import Model
from lbmux.manager.documents import StoredOverrides
from lbmux.manager.node_messages import ProtocolError, State, unpack_file
from lbmux.manager.revisions import digest

log = logging.getLogger(__name__)
DIGEST = "[0-9a-f]" * 16
"""A pattern of `revisions.digest`."""
Judgement = Literal["new", "same", "behind", "stale", "other_pool"]


class NodeState(Model):
    """The state in force at a node; ``epoch`` is the highest that it has seen."""

    pool: str
    epoch: int
    revision: int
    text: str
    stored: StoredOverrides

    @cached_property
    def digest(self) -> str:
        return digest(self.text.encode())


def judge(held: NodeState | None, state: State) -> Judgement:
    """Classify a message for a node.

    A manager may be behind another one under the same primary; its state is not accepted, and it will catch up. Under a
    new epoch numbers may be lower, if a backup was restored.
    """
    if held is None:
        return "new"
    if state.pool != held.pool:
        return "other_pool"
    if state.epoch < held.epoch:
        return "stale"
    mine, theirs = (held.revision, held.stored.version), (state.revision, state.overrides.version)
    if mine == theirs and state.digest == held.digest and state.overrides == held.stored:
        return "same"
    if state.epoch == held.epoch and (theirs[0] < mine[0] or theirs[1] < mine[1]):
        return "behind"
    return "new"


def taken_over(held: NodeState | None, state: State) -> NodeState:
    """Return the node's state after a message; raise ProtocolError if the message's file is missing or damaged."""
    new = {"pool": state.pool, "epoch": state.epoch, "revision": state.revision, "stored": state.overrides}
    if state.file is not None:
        return NodeState(text=unpack_file(state.file).decode(errors="replace"), **new)
    if held is None or held.digest != state.digest:
        raise ProtocolError(f"the message lacks the file of revision {state.revision}")
    return held.model_copy(update=new)  # with its digest


def read_state(path: Path) -> NodeState | None:
    """Return the stored state; None if there is none that can be used."""
    if not path.exists():
        return None
    try:
        stored = json.loads(path.read_bytes())
        if "digest" in stored:  # earlier versions stored the text here
            stored["text"] = _text_of(path, stored.pop("digest")).decode()
        return NodeState.model_validate(stored)
    except (OSError, ValueError, TypeError) as error:
        log.warning("%s is not valid: starting without the last state (%s)", path, type(error).__name__)
        return None


def _text_of(path: Path, wanted: str) -> bytes:
    text = _file_of(path, wanted).read_bytes()
    if digest(text) != wanted:
        raise ValueError("another digest")
    return text


def _file_of(path: Path, name: str) -> Path:
    """Return where the text of this digest is stored, beside the state."""
    return path.with_name(f"{path.name}.{name}")


def write_state(path: Path, state: NodeState) -> None:
    """Replace the stored state; the text is written once for all states that have it.

    A failure is only logged, since the state is in force anyway.
    """
    text, rest = _file_of(path, state.digest), state.model_dump(mode="json", exclude={"text"})
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if is_new := not text.exists():
            _replace(text, state.text.encode())
        _replace(path, json.dumps({**rest, "digest": state.digest}).encode())
        for old in path.parent.glob(f"{path.name}.{DIGEST}") if is_new else ():
            if old != text:
                old.unlink()
    except OSError as error:
        log.warning("%s: %s; a restart without a manager would use an older state", path, error.strerror)


def _replace(path: Path, content: bytes) -> None:
    new = path.with_name(f"{path.name}.new")
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError:
        with suppress(OSError):
            new.unlink()
        raise
