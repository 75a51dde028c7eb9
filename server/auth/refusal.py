"""What the token endpoint answers when it grants nothing."""

from starlette.responses import JSONResponse

from server.domain.errors import Final

NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}  # RFC 6749, section 5.1

# error code -> status and the text that every refusal of that kind gets. `invalid_client` says no more than that, so
# that nobody can probe for client ids, keys or used assertions; the reason is in the log and the audit.
ANSWERS: dict[str, tuple[int, str]] = {
    "invalid_request": (400, "The request is not a well-formed client credentials request (RFC 6749, section 4.4.2)."),
    "invalid_client": (401, "Client authentication failed; the service's log has the reason under the request id."),
    "unsupported_grant_type": (400, "Only grant_type=client_credentials is supported."),
    "invalid_scope": (400, "None of the scopes asked for is registered for this client."),
}


class OAuthRefused(Final):
    """No token: `error` is the OAuth code that is answered, `reason` a short code for log and audit only."""

    def __init__(self, error: str, reason: str, *, client_id: str = "") -> None:
        super().__init__(f"{error}: {reason}")
        self.error = error
        self.reason = reason
        self.client_id = client_id

    def response(self) -> JSONResponse:
        """The JSON error of RFC 6749, section 5.2."""
        status, text = ANSWERS[self.error]
        headers = dict(NO_STORE)
        if status == 401:
            headers["WWW-Authenticate"] = 'Basic realm="access-facade"'
        return JSONResponse({"error": self.error, "error_description": text}, status_code=status, headers=headers)


def invalid_client(reason: str) -> OAuthRefused:
    """The client is not who it says it is."""
    return OAuthRefused("invalid_client", reason)
