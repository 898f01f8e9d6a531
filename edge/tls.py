"""TLS as this node speaks it: whom it believes, and what it makes of a certificate's dates while its own clock is wrong."""

import ssl
from pathlib import Path

from edge.errors import ConfigError

NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL's x509_vfy.h, which Python's ssl has no name for."""


def client_context(
    section: str,
    ca_file: Path | None,
    certificate_file: Path | None = None,
    key_file: Path | None = None,
    *,
    clock: str = "sync",
) -> ssl.SSLContext:
    """What a connection of `section` (broker, media, remote) is made with. ConfigError that names the file that can't be used.

    `clock` is sync, holdover or unsync. A node whose clock was never set can't tell an expired certificate from a good one, and
    refusing all of them would keep it silent until somebody climbs the mountain. So dates are not judged then, but only where
    a private authority vouches for the other side: among the system's hundred authorities, expired keys are anybody's.
    """
    setting, path = "ca_file", ca_file
    try:
        context = ssl.create_default_context(cafile=ca_file)
        if certificate_file is not None:
            setting, path = "certificate_file", certificate_file
            certificate_file.read_bytes()
            if key_file is not None:
                setting, path = "key_file", key_file
                key_file.read_bytes()
                setting = "certificate_file and key_file"
            # Without a password, a key that has one would make OpenSSL ask for it on the terminal.
            context.load_cert_chain(certificate_file, key_file, password="")
    except ssl.SSLError as error:
        raise ConfigError(f"{section}.{setting}: {path} is not what it should be, in PEM: {error}") from error
    except OSError as error:
        raise ConfigError(f"{section}.{setting}: {path} can't be read: {error.strerror}") from error
    if waives_dates(ca_file, clock):
        context.verify_flags |= NO_CHECK_TIME
    return context


def waives_dates(ca_file: Path | None, clock: str) -> bool:
    """Whether the dates of the other side's certificate are not judged: this clock was never set, the authority is our own."""
    return clock == "unsync" and ca_file is not None
