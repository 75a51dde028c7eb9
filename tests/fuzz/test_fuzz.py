"""Requirement: mutated input never crashes a reader and never takes over a second; it is refused or converted with
issues. A few hundred of each kind here; `make fuzz` runs 10,000, FUZZ=100000 more."""

import os
import time

import pytest

from server.intake.convert import converted

COUNT = int(os.environ.get("FUZZ", "300"))
LONGEST = 1.0  # seconds of the processor, for one input: the machine may be busy with other tests
KINDS = ("hl7v2", "cda", "fhir")


@pytest.mark.parametrize("kind", KINDS)
def test_mutants_are_refused_or_converted_in_time(kind: str, mutants) -> None:
    """Each answer has resources or says why not; none takes a second. The number and the seed name a bad one."""
    slow: list[tuple[int, float]] = []
    for number, data in mutants(kind, COUNT):
        started = time.process_time()
        try:
            answers = converted(data)
        except Exception as failure:
            raise AssertionError(f"{kind} mutant {number} crashed the reader: {failure!r}") from failure
        took = time.process_time() - started
        if took > LONGEST:
            slow.append((number, took))
        for answer in answers:
            assert answer["bundle"] or answer["issues"], f"{kind} mutant {number}: neither resources nor a reason"
    assert slow == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_number_gives_the_same_bytes(kind: str, cases, mutants) -> None:
    """A finding can be made again."""
    assert list(mutants(kind, 20)) == list(mutants(kind, 20))
    assert len(cases(kind)) > 2
