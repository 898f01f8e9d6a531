"""Errors of the gateway, one class per thing a caller can do about it."""


class ConfigError(ValueError):
    """The configuration can't be used; the text names the setting. Exit code 2."""


class StoreDown(OSError):
    """The series store can't take points now; the same points may be written again later."""


class StoreRefused(RuntimeError):
    """The series store will never take this as it is configured: bad credentials, no such bucket, a damaged file."""
