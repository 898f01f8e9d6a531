"""The gateway over HTTP: what people, pages and uploading nodes may ask and say.

`app` puts it together, `gate` lets in who has a token, `authorize` says who may do what, each other module is one
group of routes. Routes read the state database; only alerts (acknowledge), media (upload, clear)
and nodes (what they are asked and told) write.
"""

from gateway.api.app import create_app
from gateway.api.deps import Deps
from gateway.api.server import serve
from gateway.api.tokens import Tokens, read_tokens

__all__ = ["Deps", "Tokens", "create_app", "read_tokens", "serve"]
