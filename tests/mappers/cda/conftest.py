"""Own C-CDA documents: two whole cases, and a minimal one around any section."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from mappers.cda import convert
from mappers.conversion import Conversion, Source

CASES = Path(__file__).parents[2] / "cases" / "cda"
HEAD = """<ClinicalDocument xmlns="urn:hl7-org:v3" xmlns:sdtc="urn:hl7-org:sdtc"
 xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><id root="1.2.3" extension="d"/>
<code code="34133-9" codeSystem="2.16.840.1.113883.6.1"/><effectiveTime value="{time}"/>
<recordTarget><patientRole><id root="1.2.3.4" extension="p-1"/><patient>
<name><given>Cy</given><family>Vale</family></name>
<administrativeGenderCode code="M"/></patient></patientRole></recordTarget>
<custodian><assignedCustodian><representedCustodianOrganization><id root="1.2.3.5" extension="o"/><name>Clinic</name>
</representedCustodianOrganization></assignedCustodian></custodian><component><structuredBody>"""
TAIL = "</structuredBody></component></ClinicalDocument>"


def source(data: bytes, zone: str | None = None) -> Source:
    """Where the bytes of a test come from."""
    return Source(hashlib.sha256(data).hexdigest(), "2026-02-03T04:05:06Z", zone)


@pytest.fixture(scope="session")
def case() -> Callable[[str], bytes]:
    """The bytes of a case by its name."""
    return lambda name: (CASES / f"{name}.xml").read_bytes()


@pytest.fixture
def read(case: Callable[[str], bytes]) -> Callable[[str], Conversion]:
    """A case by name, converted."""
    return lambda name: convert(case(name), source(case(name)))


@pytest.fixture(scope="session")
def wrap() -> Callable[..., bytes]:
    """A whole document around entries of one section."""

    def made(code: str, entries: str, *, time: str = "20260301120000-0500") -> bytes:
        inner = f'<code code="{code}" codeSystem="2.16.840.1.113883.6.1"/>{entries}'
        section = f"<component><section>{inner}</section></component>"
        return (HEAD.format(time=time) + section + TAIL).encode()

    return made


@pytest.fixture
def of(wrap: Callable[..., bytes]) -> Callable[..., Conversion]:
    """Entries of one section, converted."""

    def converted(code: str, entries: str, *, time: str = "20260301120000-0500", zone: str | None = None) -> Conversion:
        data = wrap(code, entries, time=time)
        return convert(data, source(data, zone))

    return converted


@pytest.fixture(scope="session")
def names() -> list[str]:
    """All own cases."""
    return sorted(path.stem for path in CASES.glob("*.xml"))
