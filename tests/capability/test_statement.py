"""What the server says about itself is true, valid, and all in one place."""

import pytest

from capability.features import features
from capability.parameters import operation_definition
from capability.smart import smart_configuration
from capability.statement import capability_statement, interactions, search_parameters
from profiles import library
from profiles.canonical import unversioned
from profiles.validate import validate

BASE = "https://facade.example"
TOPIC = f"{BASE}/SubscriptionTopic/care-update"
CHECKED_AT_THE_DOOR = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition/backport-subscription"


def test_the_statement_is_valid_r4() -> None:
    """Base R4 structure and invariants, by our own checks."""
    assert validate(capability_statement(BASE, topics=(TOPIC,))) == []


def test_it_describes_this_server() -> None:
    """An instance, at its own address, for FHIR 4.0.1, in JSON."""
    made = capability_statement(BASE)
    assert (made["kind"], made["fhirVersion"], made["implementation"]["url"]) == ("instance", "4.0.1", f"{BASE}/fhir")
    assert "application/fhir+json" in made["format"]
    assert [one["code"] for one in made["rest"][0]["interaction"]] == ["batch", "transaction"]


def test_it_says_how_to_log_in() -> None:
    """SMART-on-FHIR, with the token endpoint in the older extension as well."""
    security = capability_statement(BASE)["rest"][0]["security"]
    assert security["service"][0]["coding"][0]["code"] == "SMART-on-FHIR"
    assert security["extension"][0]["extension"] == [{"url": "token", "valueUri": f"{BASE}/auth/token"}]


def test_subscription_topics_are_listed_where_the_backport_wants_them() -> None:
    """Canonical extension on the Subscription resource; the server role is instantiated."""
    made = capability_statement(BASE, topics=(TOPIC,))
    (subscription,) = [row for row in made["rest"][0]["resource"] if row["type"] == "Subscription"]
    assert [one["valueCanonical"] for one in subscription["extension"]] == [TOPIC]
    assert any(canonical.endswith("/backport-subscription-server-r4") for canonical in made["instantiates"])


def test_every_type_and_profile_is_known_to_the_validator() -> None:
    """Nothing is promised that is not checked."""
    for row in features().resources.values():
        assert row.type in library.resource_types()
        for profile in row.profiles:
            assert profile == CHECKED_AT_THE_DOOR or library.type_of(unversioned(profile)) == row.type


def test_the_types_of_the_brief_are_there() -> None:
    """26 types; those that the server makes itself can not be written."""
    assert len(features().resources) == 26
    for name, row in features().resources.items():
        derived = name in {"Bundle", "Composition", "Provenance"}
        full = {"read", "vread", "create", "update", "search-type"}
        assert row.interactions == ({"read", "search-type"} if derived else full)


def test_every_type_is_found_by_id_and_time() -> None:
    """_id, _lastUpdated and _count are on all; identifier where the type has one."""
    for name in features().resources:
        assert {"_id", "_lastUpdated", "_count"} <= search_parameters(name).keys()
    assert search_parameters("Observation").keys() >= {"patient", "subject", "code", "category", "status", "date"}
    assert "status" not in search_parameters("Goal")  # R4 has lifecycle-status instead


@pytest.mark.parametrize("name", ["Medication", "patient", "", "Patient/1", "__class__"])
def test_an_unknown_type_offers_nothing(name: str) -> None:
    """No interaction, no search."""
    assert interactions(name) == frozenset()
    assert search_parameters(name) == {}


def test_operations_are_named_once_and_defined() -> None:
    """Each has an OperationDefinition here and a canonical in the statement."""
    made = capability_statement(BASE)["rest"][0]
    patient = next(row for row in made["resource"] if row["type"] == "Patient")
    named = {one["name"]: one["definition"] for one in patient["operation"]}
    assert named.keys() == {"check-eligibility", "align", "unalign", "report-data", "submission-status", "validate"}
    assert named["align"] == "https://dsacms.github.io/cmmi-access-model/OperationDefinition/Align"
    assert named["validate"] == f"{BASE}/fhir/OperationDefinition/validate"
    assert [one["name"] for one in made["operation"]] == ["convert-data"]
    for row in features().operations.values():
        assert operation_definition(row.file)["code"] == row.name


@pytest.mark.parametrize("name", [row.file for row in features().operations.values()])
def test_operation_definitions_are_valid_r4(name: str) -> None:
    """By our own checks; only the relative `url` becomes absolute when it is served."""
    definition = operation_definition(name)
    assert definition["url"] == f"OperationDefinition/{name}"
    assert validate(definition) == []


def test_smart_configuration_says_what_the_token_endpoint_does() -> None:
    """Backend Services: assertion and secret, RS384 and ES384, system scopes and our own."""
    made = smart_configuration(BASE)
    assert made["token_endpoint"] == f"{BASE}/auth/token"
    assert made["token_endpoint_auth_signing_alg_values_supported"] == ["RS384", "ES384"]
    assert "private_key_jwt" in made["token_endpoint_auth_methods_supported"]
    assert {"client-confidential-asymmetric", "permission-v2"} <= set(made["capabilities"])
    assert {"system/*.rs", "system/Observation.crus", "access/submit"} <= set(made["scopes_supported"])


def test_declared_scopes_and_algorithms_are_those_of_the_server() -> None:
    """What is advertised can be granted, and the assertion algorithms are the ones verified."""
    from server.auth.jwks import ALGORITHMS
    from server.auth.scopes import OWN, intersect

    made = smart_configuration(BASE)
    assert set(made["token_endpoint_auth_signing_alg_values_supported"]) == set(ALGORITHMS)
    assert set(features().own_scopes) == OWN
    everything = "system/*.cruds access/submit"
    assert [scope for scope in made["scopes_supported"] if intersect(scope, everything) != scope] == []
