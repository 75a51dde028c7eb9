"""X7: every right against every scope, and what is granted of what is asked."""

import itertools

import pytest

from server.auth.caller import Caller
from server.auth.scopes import RIGHTS, allows, intersect, parse
from server.domain.errors import Refused

VERSION_2 = ["".join(letters) for n in range(1, 6) for letters in itertools.combinations(RIGHTS, n)]
VERSION_1 = {"read": {"r", "s"}, "write": {"c", "u", "d"}, "*": set(RIGHTS)}


def _caller(*scopes: str) -> Caller:
    return Caller("ehr-1", "ACCES12345", "ehr", frozenset(scopes), "token-1")


@pytest.mark.parametrize("rights", [*VERSION_2, *VERSION_1])
@pytest.mark.parametrize("scoped", ["Observation", "*", "Patient"])
@pytest.mark.parametrize("right", RIGHTS)
def test_a_scope_gives_its_rights_and_no_more(rights: str, scoped: str, right: str) -> None:
    """The full matrix of rights, SMART 1 and 2, for the type itself, all types, and another type."""
    given = VERSION_1.get(rights, set(rights))
    expected = right in given and scoped in ("Observation", "*")
    assert allows(frozenset({f"system/{scoped}.{rights}"}), "Observation", right) is expected


@pytest.mark.parametrize(
    "scope",
    [
        "patient/Observation.rs",
        "user/*.cruds",
        "system/Observation",
        "system/Observation.",
        "system/Observation.sr",
        "system/Observation.rr",
        "system/Observation.RS",
        "system/observation.rs",
        "system/Observation.rs?category=laboratory",
        "system/.rs",
        "system/*.rsx",
        "system/Observation.rs\n",
        "openid",
        "access/submit",
        "",
    ],
)
def test_what_is_no_system_scope_gives_nothing(scope: str) -> None:
    """Other contexts, wrong order, wrong case, restrictions that we do not hold to: no right at all."""
    assert parse(scope) is None


@pytest.mark.parametrize(
    ("asked", "registered", "granted"),
    [
        ("system/Observation.rs", "system/*.cruds", "system/Observation.rs"),
        ("system/Observation.read", "system/*.rs", "system/Observation.read"),
        ("system/Observation.write", "system/*.rs", ""),
        ("system/*.cruds", "system/*.rs", "system/*.rs"),
        ("system/*.rs", "system/Patient.r system/Observation.rs", "system/Observation.rs system/Patient.r"),
        ("system/Patient.cruds", "system/*.rs system/Patient.u", "system/Patient.rus"),
        ("access/submit system/*.rs", "system/*.rs", "system/*.rs"),
        ("access/submit", "system/*.cruds access/submit", "access/submit"),
        ("system/Patient.rs system/Patient.rs", "system/*.rs", "system/Patient.rs"),
        ("cdx/*.read", "system/*.cruds cdx/*.read", ""),
        ("system/Observation.rs?category=laboratory", "system/*.cruds", ""),
    ],
)
def test_granted_is_what_was_asked_cut_to_what_is_registered(asked: str, registered: str, granted: str) -> None:
    """Never more than registered, never more than asked; whole scopes stay as they were written."""
    order = "".join
    assert [order(sorted(s)) for s in intersect(asked, registered).split()] == [
        order(sorted(s)) for s in granted.split()
    ]


def test_nothing_granted_exceeds_what_is_registered() -> None:
    """Over all pairs of scopes: a granted right is asked for and registered."""
    scopes = [
        f"system/{name}.{rights}" for name in ("*", "Patient", "Goal") for rights in ("r", "cu", "read", "*", "rs")
    ]
    for asked, registered in itertools.product(scopes, scopes):
        granted = frozenset(intersect(asked, registered).split())
        for name, right in itertools.product(("Patient", "Goal", "Device"), RIGHTS):
            both = allows(frozenset({asked}), name, right) and allows(frozenset({registered}), name, right)
            assert allows(granted, name, right) is both


def test_a_missing_right_is_forbidden_and_names_the_scope() -> None:
    """403, issue code forbidden, and the scope to ask for."""
    with pytest.raises(Refused) as refused:
        _caller("system/Patient.rs").require("Observation", "c")
    assert refused.value.status == 403
    assert refused.value.issues[0].code == "forbidden"
    assert "system/Observation.c" in refused.value.issues[0].text
    assert 'error="insufficient_scope"' in refused.value.headers["WWW-Authenticate"]


def test_clinical_rights_do_not_open_the_front_door() -> None:
    """`access/submit` has to be granted by name."""
    _caller("access/submit").require_scope("access/submit")
    with pytest.raises(Refused):
        _caller("system/*.cruds").require_scope("access/submit")
