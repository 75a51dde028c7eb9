"""C-CDA documents to resources, against lxml's parse alone of the same bytes, interleaved in one run. Prints JSON.

Run: `python -m bench.cda_speed [--rounds N] [FILE ...]`. Without files, the own cases of the tests. Only the ratio
means anything: both sides see the same machine and moment. Beside it stand two bounds: `walk_ratio`, the parse over the
parse and one walk in Python over each element's name and attributes, which no reader in Python passes; `peak_memory`,
Python's own peak (tracemalloc, so without lxml's tree) over the size of the largest document.
"""

import argparse
import gc
import hashlib
import json
import statistics
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path

from lxml import etree

from mappers.cda import convert
from mappers.conversion import Source

CASES = Path(__file__).parent.parent / "tests" / "cases" / "cda"
REPEATS = 5  # a round reads every file that often on each side


def _convert(document: bytes) -> None:
    convert(document, Source(hashlib.sha256(document).hexdigest(), "2026-01-15T14:00:01-05:00"))


def _parse(document: bytes) -> None:
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    etree.fromstring(document, parser)


def _walk(document: bytes) -> None:
    for node in etree.fromstring(document, etree.XMLParser(resolve_entities=False, no_network=True)).iter():
        _ = node.tag, node.items()


def _peak(document: bytes) -> float:
    tracemalloc.start()
    _convert(document)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak / len(document)


def _seconds(work: Callable[[bytes], None], documents: Sequence[bytes]) -> float:
    start = time.process_time()
    for _ in range(REPEATS):
        for document in documents:
            work(document)
    return (time.process_time() - start) / (REPEATS * len(documents))


def measure(rounds: int, files: Sequence[Path] = ()) -> dict[str, object]:
    """Medians over interleaved rounds: documents a second on both sides, and ours over lxml's."""
    documents = [path.read_bytes() for path in files or sorted(CASES.glob("*.xml"))]
    _seconds(_convert, documents)
    ours, theirs, walks = [], [], []
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)  # as the server runs: server/wiring.py
    for _ in range(rounds):
        theirs.append(_seconds(_parse, documents))
        ours.append(_seconds(_convert, documents))
        walks.append(_seconds(_walk, documents))
    own, other, walk = (statistics.median(found) for found in (ours, theirs, walks))
    return {
        "name": "cda_speed",
        "what": "C-CDA to resources, account included, over lxml parse alone",
        "documents": len(documents),
        "mean_kb": round(sum(map(len, documents)) / len(documents) / 1024, 1),
        "ours_per_second": round(1 / own),
        "lxml_parse_per_second": round(1 / other),
        "ratio": round(other / own, 3),
        "walk_ratio": round(other / walk, 3),
        "peak_memory": round(_peak(max(documents, key=len)), 2),
        "rounds": rounds,
    }


def main() -> None:
    """Prints the result as JSON."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=20)
    arguments.add_argument("files", nargs="*", type=Path)
    given = arguments.parse_args()
    print(json.dumps(measure(given.rounds, given.files), indent=1))


if __name__ == "__main__":
    main()
