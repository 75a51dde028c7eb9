"""`validate`: every finding about one resource, in one pass."""

from typing import Any

from profiles import library, structure
from profiles.accept import accepts
from profiles.accept_profile import accepts_profile
from profiles.canonical import unversioned
from profiles.compile import Check, profile_check
from profiles.issue import Issue
from profiles.place import Place
from profiles.run import Run

Json = dict[str, Any]


def validate(resource: dict[str, Any], *profiles: str, guide: str = library.ACCESS_VERSION) -> list[Issue]:
    """Base R4 and every known profile that the resource, or one inside it, claims; and the profiles named.

    Shape: plain FHIR JSON as `profiles.fhir_json.parse` gives it; `guide` is the ACCESS guide's version to check by,
    one of `library.access_versions()`. An inner resource comes before the one that holds it, each resource's structure
    before its profiles; locations are FHIRPath from the root. A profile that is not known is an information issue.
    Raises: nothing, whatever the JSON holds; UnknownGuide for a version that is not here.
    """
    library.turn_to(guide)
    run = Run(profiles)
    structure.check_root(resource, run)
    return list(dict.fromkeys(run.issues)) if run.issues else []


def prepare(*guides: str) -> None:
    """Compiles every profile and what they stand on, so that no caller has to wait (a third of a second each)."""
    for guide in guides or (library.ACCESS_VERSION,):
        library.turn_to(guide)
        for url, definition in library.profiles().items():
            profile_check(url)
            structure.type_check(definition["type"])
            accepts(definition["type"])
            accepts_profile(url)


def _check_profiles(value: Json, place: Place, run: Run) -> None:
    """Runs what the resource claims, and on the root what the caller named."""
    if run.scope.outer is None:
        for url in run.named:
            _check_profile(url, value, place, run)
    meta = value.get("meta")
    claimed = meta.get("profile") if type(meta) is dict else None
    if type(claimed) is list:
        for index, url in enumerate(claimed):
            if type(url) is str:
                _check_profile(url, value, ((place, "meta", -1), "profile", index), run, about=place)


@library.per_selection
def _known(url: str) -> tuple[str | None, Check | None]:
    """(the type that a profile constrains, its check) of a canonical with or without version; None: unknown."""
    name = unversioned(url)
    return library.type_of(name), profile_check(name)


def _check_profile(url: str, value: Json, where: Place, run: Run, *, about: Place | None = None) -> None:
    wanted, check = _known(url)
    if wanted is None:
        run.information("not-found", where, "This profile is not known here, so nothing of it was checked.")
    elif wanted != value["resourceType"]:
        run.error("value", where, f"The profile {unversioned(url)} is for {wanted}; claim one for this resource type.")
    elif check is not None:
        check(value, about or where, run)


structure.after_structure(_check_profiles)
