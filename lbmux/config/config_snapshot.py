"""A snapshot of a validated configuration beside its file, so that an unchanged file loads quickly.

The snapshot of `services.yaml` is `.services.yaml.snapshot`, private to the user that writes it. Its key covers the
file's contents, the version of lbmux and the schema with its checks; its digest covers everything. A snapshot that is
missing, damaged, of another key or of another user is ignored, and replaced when the file has been read. If it cannot
be written, the next start is only slower.
"""

import contextlib
import hashlib
import io
import os
import pickle
import stat
import sys
import tempfile
from functools import cache
from importlib.metadata import version
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

from lbmux import __version__
from lbmux.codegen.sealed import READ, why_not_trusted
from lbmux.config.field_types import Model
from lbmux.config.models import Config

DIGEST_BYTES = 32
PICKLE_PROTOCOL = 5
ADDRESSES = {each.__name__: each for each in (IPv4Address, IPv4Network, IPv6Address, IPv6Network)}


@cache
def _schema() -> bytes:
    """Return a digest of what decides how a file is read: version, sources of the models, and libraries."""
    state = hashlib.sha256(" ".join((__version__, sys.version, version("pydantic"), version("pyyaml"))).encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        state.update(path.read_bytes())
    return state.digest()


class ConfigSnapshot:
    """The snapshot of the file at ``path`` with the contents ``text``."""

    def __init__(self, path: Path, text: bytes) -> None:
        self.path = path.with_name(f".{path.name}.snapshot")
        self._key = hashlib.sha256(_schema() + hashlib.sha256(text).digest()).digest()

    def read(self) -> Config | None:
        """Return the configuration, or None if there is no usable snapshot."""
        try:
            with open(os.open(self.path, READ), "rb") as file:
                status = os.fstat(file.fileno())
                content = b"" if why_not_trusted(status) or not stat.S_ISREG(status.st_mode) else file.read()
        except OSError:
            return None
        digest, key, data = (
            content[:DIGEST_BYTES],
            content[DIGEST_BYTES : 2 * DIGEST_BYTES],
            content[2 * DIGEST_BYTES :],
        )
        if key != self._key or digest != hashlib.sha256(key + data).digest():
            return None
        try:
            config = ModelUnpickler(io.BytesIO(data)).load()
        except Exception:  # damaged despite a matching digest; pickle can raise anything
            return None
        return config if isinstance(config, Config) else None

    def write(self, config: Config) -> None:
        """Replace the snapshot atomically; do nothing if that is not possible."""
        content = self._key + pickle.dumps(config, PICKLE_PROTOCOL)
        new = None
        try:
            descriptor, new = tempfile.mkstemp(dir=self.path.parent, prefix=f"{self.path.name}.")  # mode 0600
            with open(descriptor, "wb") as file:
                file.write(hashlib.sha256(content).digest() + content)
            os.replace(new, self.path)
        except OSError:
            if new is not None:
                with contextlib.suppress(OSError):
                    os.unlink(new)


class ModelUnpickler(pickle.Unpickler):
    """Makes models and addresses, nothing else: a forged snapshot cannot run code."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "ipaddress" and name in ADDRESSES:
            return ADDRESSES[name]
        kind = super().find_class(module, name) if module.startswith("lbmux.config.") else None
        if isinstance(kind, type) and issubclass(kind, Model):
            return kind
        raise pickle.UnpicklingError(f"{module}.{name} is not part of a configuration")
