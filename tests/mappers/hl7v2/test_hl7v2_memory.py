"""Requirement: what a message takes while it is converted is in proportion to it and to what it becomes."""

import pytest

from bench import oru_speed


@pytest.mark.parametrize("size", [1_000_000, 5_000_000])
def test_a_message_with_a_document_takes_less_than_two_and_a_half_times_its_size(size: int) -> None:
    """The document's Base64 is never copied more often than the reading needs; it leaves as it came."""
    measured = oru_speed.memory(oru_speed.document(size))
    assert measured["output"] < 1.1
    assert measured["peak"] < 2.5


def test_a_message_of_many_results_takes_no_more_than_in_proportion_to_what_they_become() -> None:
    """A result of a hundred bytes becomes a resource of nine hundred: the peak is bounded by both together."""
    measured = oru_speed.memory(oru_speed.dense(3000))
    assert measured["peak"] < 3.5 * (1 + measured["output"])
