"""Errors of the edge, one class per thing a caller can do about it."""


class ConfigError(ValueError):
    """The configuration can't be used; the text names the setting. Exit code 2."""


class DeviceError(OSError):
    """A device can't be read now: unplugged, missing, unreadable. The agent reports it and tries again.

    `named` is the value of the setting that names what can't be had (a pin, port, folder, adapter, file), where it may be wrong.
    """

    def __init__(self, text: str, *, named: object = None) -> None:
        super().__init__(text)
        self.named = named


class OutboxError(RuntimeError):
    """The outbox can't be opened or written; the text says what to do. Nothing may be acknowledged to a driver."""
