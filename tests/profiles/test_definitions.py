"""Our own definitions are sound FHIR, whole, and agree with the constants."""

import json
from importlib import resources
from typing import Any

import pytest

from profiles import canonical, library, tree
from profiles.access_rules import FINDERS
from profiles.fhir_json import parse
from profiles.rules import BASE_RULES, GUIDE_RULES
from profiles.us_core_rules import npi_is_valid
from profiles.validate import validate

ROOT = resources.files("profiles") / "definitions"
GUIDES = ("access-0.9.12", "pco-1.0.0")
FILES = [file for folder in GUIDES for file in sorted((ROOT / folder).iterdir(), key=str)]
ACCESS_PROFILES = [
    *(
        f"access-{name}-{way}"
        for name in ("check-eligibility", "align", "unalign", "report-data")
        for way in ("in", "out")
    ),
    "access-submission-status-out",
    *(f"access-{name}condition" for name in ("", "eckm-", "ckm-", "msk-", "bh-", "clinical-exclusion-")),
    "access-data-reporting-bundle",
    "access-data-reporting-composition",
]
PCO_PROFILES = [
    *("pco-goal-profile", "pco-prom-goal-profile", "pco-gas-goal-profile", "pco-goal-attainment-scaling"),
    *("pco-prom-score-observation", "pco-gas-score-observation", "pco-readiness-assessment", "pco-goal-barrier"),
    *("pco-what-matters-assessment", "pco-care-plan", "pco-personal-priorities-organizer"),
]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_each_definition_is_a_sound_resource(file: Any) -> None:
    """Every StructureDefinition, ValueSet and CodeSystem passes base R4, its file named after type and id."""
    definition = parse(file.read_bytes())
    assert file.name == f"{definition['resourceType']}-{definition['id']}.json"
    assert validate(definition) == []


@pytest.mark.parametrize("name", ACCESS_PROFILES)
def test_every_access_profile_is_there(name: str) -> None:
    """All profiles of the guide's requests, answers, conditions and document."""
    assert canonical.ACCESS(name) in library.profiles()


@pytest.mark.parametrize("name", PCO_PROFILES)
def test_every_pco_profile_is_there(name: str) -> None:
    """All profiles of PCO 1.0.0."""
    assert canonical.PCO(name) in library.profiles()


def test_every_base_is_known() -> None:
    """Each profile is built on a known one or a base type, but for one: SDC's response."""
    unknown = set()
    for definition in library.profiles().values():
        base = canonical.unversioned(definition["baseDefinition"])
        if base not in library.profiles() and library.type_of(base) is None:
            unknown.add(base)
    known_names = {"http://hl7.org/fhir/uv/sdc/StructureDefinition/sdc-questionnaireresponse"}
    assert unknown == known_names


@pytest.mark.parametrize("url", sorted(library.profiles()))
def test_profiles_of_profiles_are_known(url: str) -> None:
    """Every rule of our own and US Core's profiles has a named function: none of them is left to the slow way."""
    elements = library.profiles()[url]["differential"]["element"]
    keys = {rule["key"] for element in elements for rule in element.get("constraint", [])}
    assert keys <= BASE_RULES.keys() | GUIDE_RULES.keys() | FINDERS.keys()


def test_the_rules_of_what_we_store_are_named() -> None:
    """The types that pass daily have no rule that only FHIRPath knows."""
    daily = {"Observation", "Condition", "Patient", "Bundle", "Parameters", "Composition", "Goal", "CarePlan", "Task"}
    daily |= {
        "QuestionnaireResponse",
        "Questionnaire",
        "Provenance",
        "DiagnosticReport",
        "Organization",
        "Practitioner",
    }
    for path, table in library.rules().items():
        if path.partition(".")[0] in daily:
            names = [key for key in table if not key.endswith("-0")]
            assert [key for key in names if key not in BASE_RULES and f"{path}:{key}" not in BASE_RULES] == []


def test_binding_lists_of_access_are_known() -> None:
    """Each required value set of the ACCESS profiles can be asked for."""
    for url, definition in library.profiles().items():
        if url.startswith(canonical.ACCESS_IG):
            for element in definition["differential"]["element"]:
                if element.get("binding", {}).get("strength") == "required":
                    assert element["binding"]["valueSet"] in library.guide_value_sets()


def test_the_tables_hold_no_prose() -> None:
    """The derived profiles have facts only: no definition, comment or description of the guides."""
    for folder in ("r4", "us-core-6.1.0"):
        for profile in json.loads((ROOT / folder / "profiles.json").read_bytes()):
            assert profile.keys() == {"url", "type", "baseDefinition", "differential"}
            for element in profile["differential"]["element"]:
                assert not element.keys() & {"short", "definition", "comment", "requirements", "mapping"}
                assert all(rule.keys() <= {"key", "severity", "expression"} for rule in element.get("constraint", []))


def test_the_tables_stay_small() -> None:
    """All definitions together stay under a megabyte."""
    size = sum(len(file.read_bytes()) for folder in ROOT.iterdir() if folder.is_dir() for file in folder.iterdir())
    assert size < 1_000_000


def test_the_types_are_those_of_r4() -> None:
    """146 resource types, without R4B's and the repackager's."""
    assert len(library.resource_types()) == 146
    assert not {"SubscriptionStatus", "SubscriptionTopic", "Citation", "DomainResource"} & library.resource_types()
    assert set(library.types()["Meta"]["elements"]) == {
        *("id", "extension", "versionId", "lastUpdated", "source", "profile", "security", "tag")
    }


def test_slices_inherit_their_discriminator() -> None:
    """A slice of a derived profile is told by what its base says."""
    track = tree.profile(canonical.ACCESS("access-ckm-condition"))
    assert [node.facts["sliceName"] for node in track.inherited(("category:us-core",))] == ["us-core"]


@pytest.mark.parametrize(("number", "expected"), [("1234567893", True), ("1234567890", False), ("12345", False)])
def test_npi(number: str, expected: bool) -> None:
    """CMS's published example number passes, and one digit off does not."""
    assert npi_is_valid(number) is expected
