"""The nodes' identities and their remote care: authority, claims, renewals, desired documents, commands, expected tags."""
