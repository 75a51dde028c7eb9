"""ORU^R01 with six OBX to resources, against hl7apy's parse alone and against a plain split of the message down to its
subcomponents, interleaved in one run. Prints JSON.

Run: `python -m bench.oru_speed [--rounds N]`. Processor time, and only the ratio means anything:
both sides see the same machine and moment. `memory` says, for this message, for one of 10,000 OBX and for one with a
document of 5 MB, how many times the message's size the FHIR JSON of its resources is (`output`: no reader that hands
them out at once stays below), and how many times Python's peak was while it was converted (`peak`, tracemalloc).
"""

import argparse
import gc
import hashlib
import json
import statistics
import time
import tracemalloc
from collections.abc import Callable

from hl7apy.parser import parse_message

from mappers.conversion import Source
from mappers.hl7v2 import convert
from profiles import fhir_json

MESSAGE = "\r".join(
    [
        "MSH|^~\\&|LABSYS|REGIONALLAB|ACCESSFACADE|CAREORG|20260805140000-0400||ORU^R01^ORU_R01|BENCH0001|P|2.5.1",
        "PID|1||MRN-200001^^^CAREORG&2.16.840.1.113883.3.9999.10&ISO^MR~1EG4TE5MK73^^^CMS&2.16.840.1.113883.4.927&ISO^MC"
        "||Rivera^Ana^^^^^L||19500102|F||2106-3^White^CDCREC|4 Elm St^^Toledo^OH^43604^USA^H||^PRN^PH^^1^419^5550100",
        "PD1||||1234567893^Okafor^Ngozi^^^^MD^^NPI&2.16.840.1.113883.4.6&ISO^L^^^NPI",
        "PV1|1|O",
        "OBR|1||L-1^LABSYS|57698-3^Lipid panel^LN|||20260804073000-0400|||||||||||||||20260805120000-0400|||F",
        "OBX|1|NM|2093-3^Cholesterol in Serum or Plasma^LN||212|mg/dL^mg/dL^UCUM|<200|H|||F|||20260804073000-0400",
        "OBX|2|NM|2571-8^Triglyceride in Serum or Plasma^LN||168|mg/dL^mg/dL^UCUM|<150|H|||F|||20260804073000-0400",
        "OBX|3|NM|2085-9^HDL in Serum or Plasma^LN||46|mg/dL^mg/dL^UCUM|>50|L|||F|||20260804073000-0400",
        "OBX|4|NM|18262-6^LDL in Serum or Plasma^LN||131|mg/dL^mg/dL^UCUM|<100|H|||F|||20260804073000-0400",
        "OBX|5|NM|4548-4^Hemoglobin A1c in Blood^LN||7.8|%^%^UCUM|4.0-5.6|H|||F|||20260804073000-0400",
        "OBX|6|SN|98979-8^eGFR^LN||>^90|mL/min/{1.73_m2}^mL/min/{1.73_m2}^UCUM|>=60|N|||F|||20260804073000-0400",
        "",
    ]
)
GOAL, AIM, SPLIT_AIM = 40, 100, 0.4


def _messages(count: int) -> list[bytes]:
    """Different patients, control ids, times and values, so that nothing is merely remembered."""
    made = []
    for number in range(count):
        text = MESSAGE.replace("BENCH0001", f"B{number:06}").replace("MRN-200001", f"MRN-{number:06}")
        text = text.replace("|212|", f"|{100 + number % 200}.{number % 10}|").replace("L-1^", f"L-{number}^")
        made.append(text.replace("0730", f"{7 + number % 12:02}{number % 60:02}").encode())
    return made


def dense(results: int) -> bytes:
    """The message with that many OBX."""
    segments = MESSAGE.split("\r")
    rows = [f"OBX|{n}{segments[5][5:].replace('|212|', f'|{100 + n % 200}.{n % 10}|')}" for n in range(1, results + 1)]
    return "\r".join([*segments[:5], *rows, ""]).encode()


def document(size: int) -> bytes:
    """The message with one OBX, which is a document of that many bytes of Base64."""
    row = f"OBX|1|ED|18842-5^Discharge summary^LN||^application^pdf^Base64^{'JVBERi0x' * (size // 8)}||||||F"
    return "\r".join([*MESSAGE.split("\r")[:5], row, ""]).encode()


def memory(message: bytes) -> dict[str, float]:
    """The size of what is made, and the peak while it is made, in sizes of the message."""
    tracemalloc.start()
    try:
        made = convert(message, Source(hashlib.sha256(message).hexdigest(), "2026-08-05T14:00:01-04:00"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    output = sum(len(fhir_json.dump(each)) for each in (made.patient, *made.resources) if each)
    return {"output": round(output / len(message), 2), "peak": round(peak / len(message), 2)}


def _convert(message: bytes) -> None:
    convert(message, Source(hashlib.sha256(message).hexdigest(), "2026-08-05T14:00:01-04:00"))


def _parse(message: bytes) -> None:
    parse_message(message.decode(), find_groups=False)


def _split(message: bytes) -> None:
    [
        [
            [[component.split("&") for component in repetition.split("^")] for repetition in field.split("~")]
            for field in segment.split("|")
        ]
        for segment in message.decode().split("\r")
    ]


def _seconds(work: Callable[[bytes], None], messages: list[bytes]) -> float:
    start = time.process_time()
    for message in messages:
        work(message)
    return (time.process_time() - start) / len(messages)


def measure(rounds: int) -> dict[str, object]:
    """Medians over interleaved rounds, in microseconds a message, and their ratio."""
    messages = _messages(rounds * 200)
    _parse(messages[0])
    _seconds(_convert, messages[:50])
    ours, theirs, plain = [], [], []
    gc.collect()
    for number in range(rounds):
        batch = messages[number * 200 : (number + 1) * 200]
        theirs.append(_seconds(_parse, batch[:4]))
        ours.append(_seconds(_convert, batch))
        plain.append(_seconds(_split, batch))
    own, other, split = statistics.median(ours), statistics.median(theirs), statistics.median(plain)
    return {
        "name": "oru_speed",
        "what": "ORU^R01 with 6 OBX to resources, account included, over hl7apy parse alone",
        "ours_us": round(own * 1e6, 1),
        "hl7apy_parse_us": round(other * 1e6, 1),
        "split_us": round(split * 1e6, 1),
        "ratio": round(other / own, 1),
        "goal": GOAL,
        "aim": AIM,
        "ratio_to_split": round(split / own, 2),
        "aim_to_split": SPLIT_AIM,
        "memory": {
            "this": memory(messages[0]),
            "obx_10000": memory(dense(10_000)),
            "document_5mb": memory(document(5_000_000)),
        },
        "met": other / own >= GOAL,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    print(json.dumps(measure(parser.parse_args().rounds)))
