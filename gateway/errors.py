"""Errors of the gateway, one class per thing a caller can do about it."""


class ConfigError(ValueError):
    """The configuration can't be used; the text names the setting. Exit code 2."""


class NotMade(ConfigError):
    """The state database has not the tables of this version yet. A gateway that starts makes them."""

    def __init__(self, text: str, *, is_empty: bool) -> None:
        """`is_empty`: it has none at all; else those of an older version."""
        super().__init__(text)
        self.is_empty = is_empty


class StoreDown(OSError):
    """The series store can't take points now; the same points may be written again later."""


class StoreRefused(RuntimeError):
    """The series store will never take this as it is configured: bad credentials, no such bucket, a damaged file."""

    def __init__(self, text: str, status: int | None = None) -> None:
        """`status`: the server's, of HTTP, where it was a server that refused."""
        super().__init__(text)
        self.status = status
