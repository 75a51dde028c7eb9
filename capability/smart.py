"""`.well-known/smart-configuration`. Source: SMART App Launch 2.2, Conformance."""

from typing import Any

from capability.features import features

CAPABILITIES = ("client-confidential-asymmetric", "client-confidential-symmetric", "permission-v1", "permission-v2")
AUTH_METHODS = ("private_key_jwt", "client_secret_basic", "client_secret_post")
SIGNING_ALGORITHMS = ("RS384", "ES384")


def smart_configuration(base_url: str) -> dict[str, Any]:
    """Where and how a client gets a token. `base_url` has no `/fhir`."""
    return {
        "token_endpoint": f"{base_url}/auth/token",
        "grant_types_supported": ["client_credentials"],
        "token_endpoint_auth_methods_supported": list(AUTH_METHODS),
        "token_endpoint_auth_signing_alg_values_supported": list(SIGNING_ALGORITHMS),
        "scopes_supported": [
            "system/*.cruds",
            "system/*.rs",
            *(f"system/{row.type}.{_rights(row.interactions)}" for row in features().resources.values()),
            *features().own_scopes,
        ],
        "capabilities": list(CAPABILITIES),
    }


def _rights(interactions: frozenset[str]) -> str:
    """The SMART rights that the interactions of a type need."""
    letters = {"create": "c", "read": "r", "update": "u", "search-type": "s"}
    return "".join(letter for name, letter in letters.items() if name in interactions)
