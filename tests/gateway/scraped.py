"""What a scrape of `/metrics` shows, for tests that read it as Prometheus does."""

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gateway.telemetry import Telemetry


class Shown:
    """What a scrape shows: samples by name, and by the values of their labels."""

    def __init__(self, telemetry: Telemetry) -> None:
        text = generate_latest(telemetry.registry).decode()
        self.samples: dict[str, dict[tuple[str, ...], float]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = tuple(sorted(sample.labels.values()))
                self.samples.setdefault(sample.name.removeprefix("satomori_"), {})[labels] = sample.value

    def __call__(self, name: str, *labels: str) -> float:
        """0 for a sample that there is not."""
        return self.samples.get(name, {}).get(tuple(sorted(labels)), 0.0)
