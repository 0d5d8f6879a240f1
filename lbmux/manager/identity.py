"""A manager's or node's identity on its disk: certificate, key, the pool's CA, and the TLS settings made from them.

Files in PEM: `ca.crt`, and `node.pem` with certificate and key, which are replaced together. A manager that may sign
certificates also has `ca.key`. `init` makes it on the first manager. Others need it only if they are to admit and renew
nodes too: copy it by hand. Without any `ca.key`, a pool works until its certificates expire; nodes renew theirs after
two thirds of their life.
"""

import os
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from lbmux.errors import SetupError
from lbmux.manager.authority import KeyPair, Subject, ends_at, subject_of

OWN, KEY = "node.pem", b"-----BEGIN PRIVATE KEY"


@dataclass(frozen=True)
class Identity:
    """The files of one directory."""

    directory: Path

    @property
    def ca(self) -> bytes:
        return self._read("ca.crt")

    @property
    def subject(self) -> Subject:
        return subject_of(self.certificate)

    @property
    def certificate(self) -> bytes:
        """Without its key."""
        return self._read(OWN).partition(KEY)[0]

    @property
    def authority(self) -> KeyPair | None:
        """The CA with its key; None if another manager has the key."""
        return KeyPair(self.ca, self._read("ca.key")) if (self.directory / "ca.key").exists() else None

    def exists(self) -> bool:
        return (self.directory / OWN).exists()

    def write(self, ca: bytes, own: KeyPair, ca_key: bytes | None = None) -> None:
        """Write all files; keys can be read by their owner only."""
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if ca_key is not None:
                self._replace("ca.key", ca_key)
            self._replace("ca.crt", ca)
            self._replace(OWN, own.certificate + own.key)
        except OSError as error:
            hint = "give another directory with --state"
            raise SetupError(f"identity in {self.directory}", error.strerror or str(error), hint) from error

    def server_context(self) -> ssl.SSLContext:
        """TLS settings of a manager: clients may have a certificate of this pool; with a token they need none."""
        context = self._context(ssl.Purpose.CLIENT_AUTH)
        context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def client_context(self) -> ssl.SSLContext:
        """TLS settings of a node that dials a manager."""
        return self._context(ssl.Purpose.SERVER_AUTH)

    def load_into(self, context: ssl.SSLContext) -> None:
        """Use the present certificate for new connections."""
        context.load_cert_chain(self.directory / OWN)

    def _context(self, purpose: ssl.Purpose) -> ssl.SSLContext:
        """TLS settings with this identity.

        Raise SetupError, also for an expired certificate, which peers would reject silently.
        """
        if (ended := ends_at(self.certificate)) <= datetime.now(UTC):
            hint = "remove its files, and get a new certificate with `lbmux join`"
            raise SetupError(f"identity in {self.directory}", f"the certificate has expired at {ended}", hint)
        try:
            context = ssl.create_default_context(purpose, cadata=self.ca.decode())
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            self.load_into(context)
        except (OSError, ValueError) as error:
            hint = "get a certificate with `lbmux join`"
            raise SetupError(f"identity in {self.directory}", str(error), hint) from error
        return context

    def _read(self, name: str) -> bytes:
        try:
            return (self.directory / name).read_bytes()
        except OSError as error:
            hint = "run `lbmux manager init`, or `lbmux join` with a token"
            raise SetupError(str(self.directory / name), error.strerror or str(error), hint) from error

    def _replace(self, name: str, text: bytes) -> None:
        new = self.directory / f"{name}.new"
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.directory / name)


def fingerprint(ca: bytes) -> str:
    """Return the SHA-256 of a CA's certificate in hexadecimal; ``ca`` is PEM."""
    return sha256(ssl.PEM_cert_to_DER_cert(ca.decode())).hexdigest()
