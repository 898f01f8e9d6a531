"""Grafana's dashboards as code. Nothing here runs in a town: it writes the JSON and is not imported by anything but tests."""
