"""Where a notification may be sent to: the guard against server-side request forgery.

A URL is taken apart once, by one strict grammar; what is sent is rebuilt from the parts, so no two parsers can differ.
Names are resolved at send time (`server/coordination/resthook.py`) and each address has to pass `permitted`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from server.settings import LOOPBACK

MAX_LENGTH = 2048
PORTS = {"https": 443, "http": 80}

_URL = re.compile(
    r"(?P<scheme>[A-Za-z]+)://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<target>(?:/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?(?:\?[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*)?)"
)
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
# Names that never belong to a public host. Source: RFC 6761, RFC 6762, RFC 8375, RFC 9476, ICANN on .internal.
_INNER_SUFFIXES = frozenset(
    {"localhost", "local", "localdomain", "internal", "intranet", "private", "corp", "home", "lan"}
    | {"arpa", "test", "invalid", "onion", "alt"}
)
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_EMBEDDING = (IPv6Network("2001::/23"), IPv6Network("2002::/16"), IPv6Network("3fff::/20"))  # Teredo, 6to4, examples

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A checked rest-hook URL. `listed`: the operator named the host in `subscriber_hosts`."""

    scheme: str
    host: str  # lower case; IPv6 without brackets
    port: int
    target: str  # path and query, at least "/"
    listed: bool

    @property
    def authority(self) -> str:
        """The Host header: host, and the port unless it is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    def url(self, address: str | None = None) -> str:
        """The URL, with the host replaced by a checked address if one is given."""
        host = address or self.host
        return f"{self.scheme}://{f'[{host}]' if ':' in host else host}:{self.port}{self.target}"


def check(url: str, hosts: Sequence[str]) -> Endpoint | str:
    """The endpoint a URL names, or the reason (one sentence, no value of the input) why it is refused."""
    parts = _URL.fullmatch(url) if len(url) <= MAX_LENGTH else None
    if parts is None:
        return (
            "The endpoint is not an absolute URL in plain form: send scheme, host, port, path and query, nothing else."
        )
    scheme, host = parts["scheme"].lower(), parts["host"].lower().strip("[]")
    port = int(parts["port"] or PORTS.get(scheme, 0))
    if scheme not in PORTS or not 0 < port < 65536:
        return "The endpoint's scheme or port can not be used: send an https URL."
    target = parts["target"] if parts["target"].startswith("/") else "/" + parts["target"]
    endpoint = Endpoint(scheme, host, port, target, _listed(host, port, hosts))
    return _refusal(endpoint, hosts) or endpoint


def permitted(address: str, endpoint: Endpoint) -> bool:
    """Whether a resolved address may be connected to for this endpoint.

    Public addresses always; private ones only for a listed host; loopback only for a listed loopback host;
    link-local (cloud metadata), multicast and unspecified ones never.
    """
    found = ip_address(address.partition("%")[0])
    plain = (found.ipv4_mapped or found) if isinstance(found, IPv6Address) else found
    if _is_public(plain):
        return True
    if plain.is_link_local or plain.is_multicast or plain.is_unspecified or not endpoint.listed:
        return False
    return endpoint.host in LOOPBACK if plain.is_loopback else plain.is_private


def _listed(host: str, port: int, hosts: Sequence[str]) -> bool:
    names = {name.lower().strip("[]") for name in hosts}
    return bool({host, f"{host}:{port}"} & names)


def _refusal(endpoint: Endpoint, hosts: Sequence[str]) -> str | None:
    if hosts and not endpoint.listed:
        return "The endpoint's host is not one the operator allows: ask for it to be added to subscriber_hosts."
    if endpoint.scheme != "https" and not (endpoint.listed and endpoint.host in LOOPBACK):
        return "The endpoint must be https: notifications carry health data."
    address = _literal(endpoint.host)
    if address is not None:
        return None if permitted(str(address), endpoint) else "The endpoint's address is not a public one."
    return _bad_name(endpoint)


def _bad_name(endpoint: Endpoint) -> str | None:
    labels = endpoint.host.split(".")
    if len(endpoint.host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        return "The endpoint's host is not a host name in plain form."
    if _NUMBER.fullmatch(labels[-1]):
        return "The endpoint's host is a number in an unusual form: send a host name."
    if not endpoint.listed and (len(labels) < 2 or labels[-1] in _INNER_SUFFIXES):
        return "The endpoint's host is not a public name: send a fully qualified one."
    return None


def _literal(host: str) -> Address | None:
    try:
        return ip_address(host)  # strict: four decimal parts without leading zeros, or IPv6
    except ValueError:
        return None


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv6Address):
        embedded = any(address in network for network in _EMBEDDING)
        return address in _GLOBAL_UNICAST and not embedded and address.is_global
    return address.is_global and not address.is_multicast
