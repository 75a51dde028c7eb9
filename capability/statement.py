"""The CapabilityStatement, made of features.toml. Source: FHIR R4 4.0.1, CapabilityStatement."""

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from capability.features import OperationFeatures, ResourceFeatures, features
from capability.parameters import operation_url

RESTFUL_SECURITY = "http://terminology.hl7.org/CodeSystem/restful-security-service"
OAUTH_URIS = "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris"
TOPIC_EXTENSION = (
    "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition/capabilitystatement-subscriptiontopic-canonical"
)
ORDER = ("read", "vread", "create", "update", "search-type")

Json = dict[str, Any]


def interactions(resource_type: str) -> frozenset[str]:
    """What may be done with a type (`read`, `vread`, `create`, `update`, `search-type`); empty for an unknown type."""
    found = features().resources.get(resource_type)
    return found.interactions if found else frozenset()


def search_parameters(resource_type: str) -> Mapping[str, str]:
    """Search parameters of a type and their types (token, reference, date, number); empty for an unknown type."""
    found = features().resources.get(resource_type)
    return found.search if found and "search-type" in found.interactions else {}


def software_version() -> str:
    """The version of the installed distribution."""
    try:
        return version("access-facade")
    except PackageNotFoundError:
        return "0"


def capability_statement(base_url: str, *, topics: Sequence[str] = ()) -> Json:
    """What `GET /fhir/metadata` answers. `base_url` has no `/fhir`; `topics` are the SubscriptionTopic canonicals."""
    known = features()
    return {
        "resourceType": "CapabilityStatement",
        "id": "access-facade",
        "url": f"{base_url}/fhir/metadata",
        "version": software_version(),
        "name": "AccessFacade",
        "title": "FHIR facade for the ACCESS Model",
        "status": "active",
        "date": known.date,
        "publisher": "The operator of this server",
        "description": "What this server does for an organization in the ACCESS Model, its EHR and its partners.",
        "kind": "instance",
        "instantiates": list(known.instantiates),
        "software": {"name": "access-facade", "version": software_version()},
        "implementation": {"description": "This server", "url": f"{base_url}/fhir"},
        "fhirVersion": known.fhir_version,
        "format": list(known.formats),
        "implementationGuide": list(known.implementation_guides),
        "rest": [
            {
                "mode": "server",
                "documentation": "All but this page needs an OAuth 2.0 access token: SMART Backend Services.",
                "security": _security(base_url),
                "resource": [_resource(row, base_url, topics) for row in known.resources.values()],
                "interaction": [{"code": code} for code in known.system_interactions],
                "operation": [_operation(row, base_url) for row in known.operations.values() if not row.on],
            }
        ],
    }


def _security(base_url: str) -> Json:
    token = {"url": "token", "valueUri": f"{base_url}/auth/token"}
    return {
        "extension": [{"url": OAUTH_URIS, "extension": [token]}],
        "cors": False,
        "service": [{"coding": [{"system": RESTFUL_SECURITY, "code": "SMART-on-FHIR"}]}],
        "description": "OAuth 2.0 client credentials; SMART scopes of the system context, cut to what is registered.",
    }


def _resource(row: ResourceFeatures, base_url: str, topics: Sequence[str]) -> Json:
    made: Json = {"type": row.type}
    if row.type == "Subscription" and topics:
        made["extension"] = [{"url": TOPIC_EXTENSION, "valueCanonical": topic} for topic in topics]
    if row.profiles:
        made["supportedProfile"] = list(row.profiles)
    made["interaction"] = [{"code": code} for code in ORDER if code in row.interactions]
    made["versioning"] = "versioned"
    made["readHistory"] = False
    if "create" in row.interactions:
        made["updateCreate"] = True
        made["conditionalCreate"] = "identifier" in row.search
        made["conditionalUpdate"] = False
    made["conditionalRead"] = "not-supported"
    made["conditionalDelete"] = "not-supported"
    made["referencePolicy"] = ["literal", "logical"]
    made["searchParam"] = [{"name": name, "type": kind} for name, kind in row.search.items()]
    operations = [one for one in features().operations.values() if row.type in one.on or "*" in one.on]
    made["operation"] = [_operation(one, base_url) for one in operations]
    return made


def _operation(row: OperationFeatures, base_url: str) -> Json:
    definition = row.definition or operation_url(row.file, base_url)
    return {"name": row.name, "definition": definition, "documentation": row.documentation}
