"""A document does not become many times its size, and nothing of it stays when its resources are gone."""

import gc
import re
import tracemalloc
import weakref

from mappers.cda import context, convert
from mappers.conversion import Source

TIMES = 5.5  # the promise is six
ENTRIES = 150


def _dense(data: bytes) -> bytes:
    """The document with its first entry many times, each under ids of its own: all data, no narrative."""
    text = data.decode()
    entry = re.search(r"<entry\b.*?</entry>", text, re.DOTALL)
    assert entry is not None
    copies = [
        re.sub(r'<id root="[0-9a-f]{8}', lambda found, n=number: f"{found[0][:-8]}{n:08x}", entry[0])
        for number in range(ENTRIES)
    ]
    return text.replace(entry[0], "".join(copies), 1).encode()


def test_the_peak_stays_below_six_times_the_document(case):
    """Python's own peak (tracemalloc, so without lxml's tree), the resources and the base64 of the bytes included."""
    data = _dense(case("clinic-vitals"))
    source = Source("0" * 64, "2026-02-03T04:05:06Z")
    convert(data, source)
    gc.collect()
    tracemalloc.start()
    try:
        conversion = convert(data, source)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(conversion.resources) > 5 * ENTRIES
    assert peak <= TIMES * len(data)


def test_the_tree_goes_with_the_conversion(case, monkeypatch):
    """No cycle holds the document's tree until the collector comes."""
    seen: list[weakref.ref[object]] = []

    class Watched(context.Document):
        __slots__ = ("__weakref__",)

        def __init__(self, *arguments: object, **named: object) -> None:
            super().__init__(*arguments, **named)
            seen.append(weakref.ref(self))

    monkeypatch.setattr("mappers.cda.Document", Watched)
    gc.collect()
    gc.disable()
    try:
        convert(case("care-summary"), Source("0" * 64, "2026-02-03T04:05:06Z"))
        assert [one() for one in seen] == [None]
    finally:
        gc.enable()
