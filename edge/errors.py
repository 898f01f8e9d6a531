"""Errors of the edge, one class per thing a caller can do about it."""


class ConfigError(ValueError):
    """The configuration can't be used; the text names the setting. Exit code 2."""


class DeviceError(OSError):
    """A device can't be read now: unplugged, missing, unreadable. The agent reports it and tries again."""


class OutboxError(RuntimeError):
    """The outbox can't be opened or written; the text says what to do. Nothing may be acknowledged to a driver."""
