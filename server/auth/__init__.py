"""Who is calling: the OAuth 2.0 token endpoint, the access tokens it issues, and what each caller may do.

Source: SMART App Launch 2.2, Backend Services and Asymmetric Client Authentication; RFC 6749, 7521, 7523, 9068.
"""

from server.auth.authority import Authority
from server.auth.caller import Caller
from server.auth.middleware import AuthMiddleware, is_public

__all__ = ["AuthMiddleware", "Authority", "Caller", "is_public"]
