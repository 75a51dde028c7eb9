"""C-CDA documents to resources, against lxml's parse alone of the same bytes, interleaved in one run. Prints JSON.

Run: `python -m bench.cda_speed [--rounds N] [FILE ...]`. Without files, the own cases of the tests, and `large`: the
same grown to what EHRs send, each entry many times under ids of its own beside a table of narrative that tells it.
Only ratios mean anything: both sides see the same machine and moment. Beside ours stand bounds that no mapper in Python
passes: `walk_ratio` reads each element's name and attributes and does nothing with them; `floor_ratio` visits each
element once, reads two attributes, and makes the same resources by unpickling, with their hashes and base64: all but
the mapping. `peak_memory` is Python's own peak (tracemalloc, so without lxml's tree) over the size of the largest.
"""

import argparse
import gc
import hashlib
import json
import pickle
import re
import statistics
import time
import tracemalloc
from binascii import b2a_base64
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from lxml import etree

from mappers.cda import convert
from mappers.conversion import Conversion, Source

CASES = Path(__file__).parent.parent / "tests" / "cases" / "cda"
REPEATS = 5  # a round reads every file that often on each side
TIMES = 8  # as many entries has a grown document for each of its own
_ROW = '<tr ID="r{0}"><td>Item {0}</td><td>2026-01-15</td><td><content ID="c{0}">as measured</content></td></tr>'


def _convert(document: bytes) -> Conversion:
    return convert(document, Source(hashlib.sha256(document).hexdigest(), "2026-01-15T14:00:01-05:00"))


def _parser() -> etree.XMLParser:
    return etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)


def _parse(document: bytes) -> Any:
    return etree.fromstring(document, _parser())


def _walk(document: bytes) -> None:
    for node in _parse(document).iter():
        _ = node.tag, node.items()


def _floor(made: dict[bytes, bytes]) -> Callable[[bytes], None]:
    def work(document: bytes) -> None:
        _visit(_parse(document))
        for _ in pickle.loads(made[document]):
            hashlib.sha256(b"Observation and the ids that name it").hexdigest()
        _ = hashlib.sha256(document).hexdigest(), hashlib.sha1(document, usedforsecurity=False).hexdigest()
        b2a_base64(document).decode("ascii")

    return work


def _visit(node: Any) -> None:
    for child in node[:]:
        _ = child.tag, child.get("code"), child.get("value")
        if len(child):
            _visit(child)


def _made(document: bytes) -> bytes:
    conversion = _convert(document)
    kept = [{**one, "data": ""} if one["resourceType"] == "Binary" else one for one in conversion.resources]
    return pickle.dumps([conversion.patient, *kept])


def _peak(document: bytes) -> float:
    tracemalloc.start()
    _convert(document)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak / len(document)


def grown(document: bytes) -> bytes:
    """A document of many entries and much narrative. Each copy of an entry has ids of its own."""
    counts = iter(range(1_000_000))

    def copies(section: re.Match[str]) -> str:
        opening, entries, rest = section.groups()
        listed = re.findall(r"<entry\b.*?</entry>", entries, re.DOTALL) * TIMES
        rows = "".join(_ROW.format(next(counts)) for _ in listed)
        own = [re.sub(r'<id root="[0-9a-f]{8}', f'<id root="{next(counts):08x}', one) for one in listed]
        return f"{opening}<text><table><tbody>{rows}</tbody></table></text>{''.join(own)}{rest}"

    pattern = r"(<section\b(?:(?!</section>|<entry\b).)*)(<entry\b(?:(?!</section>).)*</entry>)(.*?</section>)"
    return re.sub(pattern, copies, document.decode(), flags=re.DOTALL).encode()


def _seconds(work: Callable[[bytes], object], documents: Sequence[bytes]) -> float:
    start = time.process_time()
    for _ in range(REPEATS):
        for document in documents:
            work(document)
    return (time.process_time() - start) / (REPEATS * len(documents))


def _ratios(rounds: int, documents: Sequence[bytes]) -> dict[str, object]:
    """Medians over interleaved rounds: lxml's parse over ours and over what each bound takes."""
    floor = _floor({document: _made(document) for document in documents})
    sides: dict[str, Callable[[bytes], object]] = {"": _parse, "ratio": _convert, "walk_ratio": _walk}
    sides["floor_ratio"] = floor
    took: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, work in sides.items():
            took[name].append(_seconds(work, documents))
    median = {name: statistics.median(found) for name, found in took.items()}
    parse = median.pop("")
    return {
        "documents": len(documents),
        "mean_kb": round(sum(map(len, documents)) / len(documents) / 1024, 1),
        "ours_per_second": round(1 / median["ratio"]),
        "lxml_parse_per_second": round(1 / parse),
        **{name: round(parse / value, 3) for name, value in median.items()},
        "peak_memory": round(_peak(max(documents, key=len)), 2),
    }


def measure(rounds: int, files: Iterable[Path] = ()) -> dict[str, object]:
    """Ours and the bounds, of the files or of the own cases and of these grown."""
    documents = [path.read_bytes() for path in files]
    own = documents or [path.read_bytes() for path in sorted(CASES.glob("*.xml"))]
    _seconds(_convert, own)
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)  # as the server runs: server/wiring.py
    what = "C-CDA to resources, account included, over lxml parse alone"
    result = {"name": "cda_speed", "what": what, **_ratios(rounds, own), "rounds": rounds}
    if not documents:
        result["large"] = _ratios(max(1, rounds // 4), [grown(one) for one in own])
    return result


def main() -> None:
    """Prints the result as JSON."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=20)
    arguments.add_argument("files", nargs="*", type=Path)
    given = arguments.parse_args()
    print(json.dumps(measure(given.rounds, given.files), indent=1))


if __name__ == "__main__":
    main()
