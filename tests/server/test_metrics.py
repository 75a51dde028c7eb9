"""Counting requests: the page that Prometheus reads."""

from prometheus_client import CollectorRegistry, generate_latest

from server.metrics import Requests


def page(requests: Requests) -> str:
    """What is exposed."""
    registry = CollectorRegistry()
    registry.register(requests)
    return generate_latest(registry).decode()


def test_requests_are_counted_by_door_and_status() -> None:
    """One line for each door and status."""
    requests = Requests()
    for status in (201, 201, 422):
        requests.count("fhir", status, 0.001)
    assert 'access_facade_requests_total{door="fhir",status="201"} 2.0' in page(requests)
    assert 'access_facade_requests_total{door="fhir",status="422"} 1.0' in page(requests)


def test_the_buckets_of_the_times_add_up() -> None:
    """Each bucket holds all that took no longer; the last one holds all, and the sum is kept."""
    requests = Requests()
    for seconds in (0.005, 0.02, 0.5, 60.0):
        requests.count("fhir", 200, seconds)
    text = page(requests)
    for bound, count in (("0.005", 1), ("0.01", 1), ("0.025", 2), ("0.5", 3), ("10.0", 3), ("+Inf", 4)):
        assert f'access_facade_request_seconds_bucket{{door="fhir",le="{bound}"}} {count}.0' in text
    assert 'access_facade_request_seconds_count{door="fhir"} 4.0' in text
    assert 'access_facade_request_seconds_sum{door="fhir"} 60.525' in text
