"""Derives compact tables of facts from an official FHIR package: `python -m profiles.tables PACKAGE.tgz OUT`.

For `hl7.fhir.r4.core` it writes `types.json` (every resource and datatype), `rules.json` (invariants), `profiles.json`
(vitalsigns) and `valuesets.json`; for any other package `profiles.json` and `valuesets.json`. Paths, cardinalities,
types, required codes, reference targets, fixed values, slices and expressions are kept; all human text is left out.

One element of `types.json` reads `MIN..MAX TYPE|TYPE(TARGET,TARGET) ! VALUESET`; `@NAME` is another element's type.
`--base PACKAGE.tgz` names a package whose code systems the value sets may need.
"""

import argparse
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from profiles.archive import json_files
from profiles.canonical import FHIR_BASE, unversioned

Json = dict[str, Any]
_NOT_R4 = {"DomainResource", "SubscriptionStatus", "Resource"}
_EXTENSION_TYPE = FHIR_BASE + "structuredefinition-fhir-type"
_EVERYWHERE = ("ele-1", "ext-1", "dom-", "txt-")  # checked by the structure itself, or by profiles.base
_OWN_PROFILES = ("vitalsigns",)  # of the R4 core package: the base of US Core's vital signs
_ELEMENT_FACTS = ("id", "path", "sliceName", "min", "max", "contentReference")
_RELAXED = {("vitalsigns", "Observation.component.value[x]")}  # US Core 6.1.0's snapshots loosen this binding
_MAX_CODES = 2000  # a longer list is a terminology, not an enumeration


class Package:
    """The JSON files of one package, by resource type and URL."""

    def __init__(self, file: Path) -> None:
        self._by_type: dict[str, dict[str, Json]] = {}
        self.manifest: Json = {}  # of package.json: name, version, fhirVersions
        for name, resource in json_files(file):
            if name == "package.json" and isinstance(resource, dict):
                self.manifest = resource
            self._add(resource)

    def _add(self, resource: Any) -> None:
        if isinstance(resource, dict) and "url" in resource and "resourceType" in resource:
            self._by_type.setdefault(resource["resourceType"], {})[resource["url"]] = resource

    def all(self, resource_type: str) -> dict[str, Json]:
        """Every resource of the type, by URL."""
        return self._by_type.get(resource_type, {})


# --- Base types -----------------------------------------------------------------------------------------------------


def base_types(package: Package) -> tuple[dict[str, Json], dict[str, Json]]:
    """(types, rules): each type's and backbone's elements; and each path's `{key: [severity, expression]}`."""
    types: dict[str, Json] = {}
    rules: dict[str, Json] = {}
    for definition in package.all("StructureDefinition").values():
        if _is_base_type(definition):
            _add_type(definition, types, rules)
    return dict(sorted(types.items())), dict(sorted(rules.items()))


def _is_base_type(definition: Json) -> bool:
    kind = definition["kind"]
    concrete = definition.get("derivation") != "constraint" and definition["type"] not in _NOT_R4
    return concrete and kind in ("resource", "complex-type")


def _add_type(definition: Json, types: dict[str, Json], rules: dict[str, Json]) -> None:
    elements = definition["snapshot"]["element"]
    parents = {path.rpartition(".")[0] for path in (element["path"] for element in elements)}
    for element in elements:
        path = element["path"]
        _add_rules(element, rules)
        if path in parents:
            types[path] = {"kind": definition["kind"]} if "." not in path else {"kind": "backbone"}
            types[path]["elements"] = {}
        owner, _, name = path.rpartition(".")
        if owner and not _stray(element):
            types[owner]["elements"][name] = _row(element, backbone=path in parents)


def _stray(element: Json) -> bool:
    """Whether the repackager added the element: what HL7 defines carries ele-1, except ids and resource slots."""
    codes = {kind["code"] for kind in element.get("type", [])}
    plain = codes & {"Resource", "http://hl7.org/fhirpath/System.String"}
    return not plain and not any(rule["key"] == "ele-1" for rule in element.get("constraint", []))


def _row(element: Json, *, backbone: bool) -> str:
    if "contentReference" in element:
        kinds = "@" + element["contentReference"].lstrip("#")
    elif backbone:
        kinds = "@" + element["path"]
    else:
        kinds = "|".join(_type_name(element, kind) for kind in element["type"])
    binding = element.get("binding", {})
    codes = f" ! {unversioned(binding['valueSet'])}" if binding.get("strength") == "required" else ""
    return f"{element['min']}..{element['max']} {kinds}{codes}"


def _type_name(element: Json, kind: Json) -> str:
    code: str = kind["code"]
    if code.startswith("http://hl7.org/fhirpath/"):  # ids and Extension.url
        named = [each["valueUrl"] for each in kind.get("extension", []) if each["url"] == _EXTENSION_TYPE]
        is_resource_id = element.get("base", {}).get("path") == "Resource.id"
        return "id" if is_resource_id else (named or ["string"])[0]
    targets = [target.rpartition("/")[2] for target in kind.get("targetProfile", [])]
    if code != "Reference" or not targets or "Resource" in targets:
        return code
    return f"Reference({','.join(targets)})"


def _add_rules(element: Json, rules: dict[str, Json]) -> None:
    for rule in element.get("constraint", []):
        if not rule["key"].startswith(_EVERYWHERE) and rule.get("expression"):
            rules.setdefault(element["path"], {})[rule["key"]] = [rule["severity"], rule["expression"]]


# --- Profiles -------------------------------------------------------------------------------------------------------


def profiles(package: Package, *, only: tuple[str, ...] = ()) -> list[Json]:
    """Differentials of the profiles (of all, or of those named), without text."""
    found = []
    for url, definition in sorted(package.all("StructureDefinition").items()):
        if definition.get("derivation") == "constraint" and (not only or definition["id"] in only):
            elements = [_element_facts(element, definition["id"]) for element in definition["differential"]["element"]]
            elements += _single_types(definition)
            kept = [element for element in elements if element.keys() - {"id", "path"}]
            head = {"url": url, "type": definition["type"], "baseDefinition": definition["baseDefinition"]}
            found.append(head | {"differential": {"element": kept}})
    return found


def _single_types(definition: Json) -> Iterator[Json]:
    """`x[x]` elements that the snapshot narrows to one type where the differential only writes `xType`."""
    written = {element["id"] for element in definition["differential"]["element"]}
    for element in definition.get("snapshot", {}).get("element", []):
        stem, types = element["id"].removesuffix("[x]"), element.get("type", [])
        if stem != element["id"] and element["id"] not in written and len(types) == 1:
            code = types[0]["code"]
            if stem + code[0].upper() + code[1:] in written:
                yield {"id": element["id"], "path": element["path"], "type": [{"code": code}]}


def _element_facts(element: Json, profile: str) -> Json:
    facts = {key: element[key] for key in _ELEMENT_FACTS if key in element}
    facts |= {key: value for key, value in element.items() if key.startswith(("fixed", "pattern"))}
    if "type" in element:
        facts["type"] = [_without(kind, "extension", "_targetProfile") for kind in element["type"]]
    if "slicing" in element:
        facts["slicing"] = _without(element["slicing"], "description")
    relaxed = (profile, element["id"]) in _RELAXED
    if element.get("binding", {}).get("strength") == "required" and not relaxed:
        facts["binding"] = {"strength": "required", "valueSet": unversioned(element["binding"]["valueSet"])}
    if "constraint" in element:
        facts["constraint"] = [
            {key: rule[key] for key in ("key", "severity", "expression") if key in rule}
            for rule in element["constraint"]
        ]
    return facts


def _without(value: Json, *keys: str) -> Json:
    return {key: item for key, item in value.items() if key not in keys}


# --- Value sets -----------------------------------------------------------------------------------------------------


def value_sets(urls: Iterable[str], packages: list[Package]) -> Json:
    """The value sets that can be enumerated: `{url: {system: [code]}}`. The others are left out."""
    found = {}
    for url in sorted(set(urls)):
        codes = _expand(url, packages)
        if codes is not None and sum(map(len, codes.values())) <= _MAX_CODES:
            found[url] = {system: sorted(set(members)) for system, members in sorted(codes.items())}
    return found


def _expand(url: str, packages: list[Package]) -> dict[str, list[str]] | None:
    definition = _find("ValueSet", url, packages)
    if definition is None or "exclude" in definition.get("compose", {}):
        return None
    codes: dict[str, list[str]] = {}
    for include in definition.get("compose", {}).get("include", []):
        members = _include(include, packages)
        if members is None:
            return None
        for system, listed in members.items():
            codes.setdefault(system, []).extend(listed)
    return codes or None


def _include(include: Json, packages: list[Package]) -> dict[str, list[str]] | None:
    if "filter" in include:
        return None
    if "valueSet" in include:
        return (
            None if "system" in include or len(include["valueSet"]) > 1 else _expand(include["valueSet"][0], packages)
        )
    if "concept" in include:
        return {include["system"]: [concept["code"] for concept in include["concept"]]}
    system = _find("CodeSystem", include["system"], packages)
    if system is None or system.get("content") != "complete":
        return None
    return {include["system"]: list(_codes(system.get("concept", [])))}


def _codes(concepts: list[Json]) -> Iterator[str]:
    for concept in concepts:
        yield concept["code"]
        yield from _codes(concept.get("concept", []))


def _find(resource_type: str, url: str, packages: list[Package]) -> Json | None:
    key = unversioned(url)
    return next((found for package in packages if (found := package.all(resource_type).get(key))), None)


# --- Command --------------------------------------------------------------------------------------------------------


def _bound_in_types(types: dict[str, Json]) -> Iterator[str]:
    for definition in types.values():
        for row in definition["elements"].values():
            if " ! " in row:
                yield row.partition(" ! ")[2]


def _bound_in_profiles(found: list[Json]) -> Iterator[str]:
    for profile in found:
        for element in profile["differential"]["element"]:
            if "binding" in element:
                yield element["binding"]["valueSet"]


def _write(folder: Path, name: str, value: Json | list[Json]) -> None:
    """One entry a line: compact, and a change shows as a line."""
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(value, list):
        lines, around = [_compact(entry) for entry in value], "[]"
    else:
        lines, around = [f"{_compact(key)}:{_compact(entry)}" for key, entry in value.items()], "{}"
    text = f"{around[0]}\n" + ",\n".join(lines) + f"\n{around[1]}\n"
    (folder / name).write_text(text, encoding="utf-8")


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def derive(package: Package, out: Path, *, base: Package | None = None) -> None:
    """Writes the tables of one package into the folder."""
    is_core = FHIR_BASE + "Patient" in package.all("StructureDefinition")
    found = profiles(package, only=_OWN_PROFILES if is_core else ())
    bound = set(_bound_in_profiles(found))
    if is_core:
        types, rules = base_types(package)
        bound |= set(_bound_in_types(types))
        _write(out, "types.json", types)
        _write(out, "rules.json", rules)
    _write(out, "profiles.json", found)
    _write(out, "valuesets.json", value_sets(bound, [package, base] if base else [package]))


def main() -> None:
    """Reads the command line and writes the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m profiles.tables", description="Tables of facts from a FHIR package"
    )
    parser.add_argument("package", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--base", type=Path, help="package that holds the code systems which value sets refer to")
    options = parser.parse_args()
    derive(Package(options.package), options.out, base=Package(options.base) if options.base else None)


if __name__ == "__main__":
    main()
