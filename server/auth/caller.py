"""The authenticated caller of one request and its rights."""

import re
from dataclasses import dataclass

from profiles.issue import error
from server.auth.scopes import allows
from server.domain.errors import Refused

SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6749, section 3.3
RIGHT_NAMES = {"c": "create", "r": "read", "u": "update", "d": "delete", "s": "search"}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who holds the token of this request. `token_id` is the token's `jti`, for the audit."""

    client_id: str
    participant_id: str
    role: str
    scopes: frozenset[str]
    token_id: str

    def may(self, resource_type: str, right: str) -> bool:
        """Whether the token's scopes give `right` (c, r, u, d, s) on a resource type."""
        return allows(self.scopes, resource_type, right)

    def require(self, resource_type: str, right: str) -> None:
        """Raises Refused (403 forbidden) unless the token's scopes give the right."""
        if not self.may(resource_type, right):
            raise _forbidden(f"system/{resource_type}.{right}", f"{RIGHT_NAMES[right]} {resource_type}")

    def require_scope(self, scope: str) -> None:
        """Raises Refused (403 forbidden) unless the token has exactly this scope, such as `access/submit`."""
        if scope not in self.scopes:
            raise _forbidden(scope, "use this part of the service")


def _forbidden(scope: str, wish: str) -> Refused:
    text = f"The access token does not allow to {wish}: ask for a token with the scope {scope}."
    header = 'Bearer realm="access-facade", error="insufficient_scope"'  # RFC 6750, section 3.1
    if SCOPE.fullmatch(scope):  # a resource type comes from the caller: only what a scope may hold goes into a header
        header += f', scope="{scope}"'
    return Refused(403, [error("forbidden", "http.Authorization", text)], headers={"WWW-Authenticate": header})
