"""Who may come in: accounts, and how their owners prove themselves. What they may do then is gateway.policy's.

`Accounts` is what the API, the pages and LINE's talk work with; a session's cookie becomes an `Actor`.
"""
