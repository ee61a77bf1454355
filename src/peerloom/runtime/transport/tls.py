"""Secure connections between hosts by TLS, with one certificate for each run.

All members of a run have this certificate, and trust no other. The engine passes it to them; it is not
written to a disk. TLS 1.3 (RFC 8446) protects messages from being read, altered, truncated, or replayed.
"""

import os
import ssl
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

_NAME = "peerloom run"
_VALID = timedelta(days=3650)  # longer than any run, and tolerant of clocks that differ


@dataclass(frozen=True, slots=True)
class Credentials:
    """The credentials by which the members of a run authenticate each other.

    Args:
        certificate: the certificate of the run, as PEM.
        key: the private key of the certificate, as PEM.
    """

    certificate: bytes = field(repr=False)
    key: bytes = field(repr=False)

    @classmethod
    def create(cls) -> "Credentials":
        """Create the credentials of a new run."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _NAME)])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _VALID)
            .not_valid_after(now + _VALID)
            .sign(key, SHA256())
        )
        return cls(
            certificate=certificate.public_bytes(Encoding.PEM),
            key=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        )

    def server_context(self) -> ssl.SSLContext:
        """Return the TLS settings of the listening end."""
        context = self._context(ssl.PROTOCOL_TLS_SERVER)
        context.num_tickets = 0  # connections last as long as the run
        return context

    def client_context(self) -> ssl.SSLContext:
        """Return the TLS settings of the calling end."""
        return self._context(ssl.PROTOCOL_TLS_CLIENT)

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False  # the certificate itself is trusted, not a name
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=self.certificate.decode())
        with _readable(self.key + self.certificate) as path:
            context.load_cert_chain(path)
        return context


@contextmanager
def _readable(data: bytes) -> Generator[str]:
    """Provide a path to `data`, as `ssl` requires; in memory if the system supports it."""
    if hasattr(os, "memfd_create"):
        with open(os.memfd_create("tls"), "wb") as file:
            file.write(data)
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"
        return
    with tempfile.TemporaryDirectory() as folder:  # 0700
        path = Path(folder) / "tls.pem"
        path.write_bytes(data)
        yield str(path)
