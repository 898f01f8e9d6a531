"""What people look at, as files that the gateway serves. They speak HTTP only; no Python here."""
