"""Everything the gateway knows besides time series: nodes, events, alerts, notifications, quarantine.

`tables` is the schema, `migrations` how it came to be, `database` how it is opened. SQL stands with the code whose
facts it writes (pipeline, watch, notify, api), never behind a second vocabulary of wrappers.
"""

from gateway.state.database import State, open_state

__all__ = ["State", "open_state"]
