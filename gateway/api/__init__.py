"""The gateway over HTTP: what people, pages and uploading nodes may ask and say.

`app` puts it together, `gate` lets in who has a token, `authorize` says who may do what, each other module is one
group of routes. Routes read the state database; only alerts (acknowledge), media (upload, clear)
and nodes (what they are asked and told) write.
"""
