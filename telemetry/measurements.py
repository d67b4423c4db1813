"""What is looked up when Prometheus asks, rather than counted as it happens."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector


@dataclass(frozen=True, slots=True)
class Measurement:
    """A metric as it stands now: its samples by the values of its labels, none while nobody can tell.

    A name in `_total` is a counter's, kept elsewhere and over restarts; any other is a gauge's.
    """

    name: str
    documentation: str
    labels: tuple[str, ...] = ()
    samples: Mapping[tuple[str, ...], float] = field(default_factory=dict[tuple[str, ...], float])

    @classmethod
    def of(cls, name: str, documentation: str, value: float | None) -> "Measurement":
        return cls(name, documentation, samples={} if value is None else {(): value})

    @classmethod
    def by(cls, name: str, documentation: str, values: Mapping[str, float], *, label: str) -> "Measurement":
        return cls(name, documentation, (label,), {(word,): value for word, value in values.items()})


def to_text(measurements: Iterable[Measurement]) -> bytes:
    registry = CollectorRegistry()
    registry.register(_Measurements(measurements))
    return generate_latest(registry)


class _Measurements(Collector):
    """As prometheus_client wants to be given them."""

    def __init__(self, measurements: Iterable[Measurement]) -> None:
        self._measurements = measurements

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        for measurement in self._measurements:
            family = CounterMetricFamily if measurement.name.endswith("_total") else GaugeMetricFamily
            told = family(measurement.name, measurement.documentation, labels=measurement.labels)
            for labels, value in measurement.samples.items():
                told.add_metric(labels, value)
            yield told
