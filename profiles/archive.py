"""Reads the JSON files of a FHIR package (`.tgz`) without unpacking it: no file is written, no link followed.

A package comes from outside, so it is read as a stream with a limit on everything: the file, what it unpacks to, each
member, and how many there are. Source: FHIR NPM packages, `package/NAME.json`.
"""

import gzip
import json
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

MAX_FILE = 64 * 2**20  # bytes of the package
MAX_UNPACKED = 512 * 2**20  # hl7.fhir.r4.core unpacks to about a third of this
MAX_MEMBER = 32 * 2**20
MAX_MEMBERS = 50_000
_FOLDER = "package/"


class PackageRefused(ValueError):
    """The file is no package that can be read here; the message says why and what to do."""


class _Bounded:
    """A stream that ends in a refusal when it gives more than a package holds."""

    def __init__(self, file: gzip.GzipFile) -> None:
        self._file = file
        self._left = MAX_UNPACKED

    def read(self, size: int) -> bytes:
        """The next bytes."""
        data = self._file.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise PackageRefused("The package unpacks to more than 512 MiB; send an official FHIR package.")
        return data


def json_files(path: Path) -> Iterator[tuple[str, Any]]:
    """(file name, content) of each JSON file right under `package/`, in the order of the archive.

    Raises: PackageRefused when the file is too large, damaged, or holds JSON that can not be read; OSError.
    """
    if path.stat().st_size > MAX_FILE:
        raise PackageRefused("The package is larger than 64 MiB; send an official FHIR package.")
    try:
        with (
            gzip.open(path) as unzipped,
            tarfile.open(fileobj=cast("IO[bytes]", _Bounded(unzipped)), mode="r|") as archive,
        ):
            yield from _members(archive)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as caught:
        raise PackageRefused("The file is no gzipped tar archive, or is damaged; download it again.") from caught


def _members(archive: tarfile.TarFile) -> Iterator[tuple[str, Any]]:
    for number, member in enumerate(archive):
        if number >= MAX_MEMBERS:
            raise PackageRefused(f"The package holds more than {MAX_MEMBERS} files; send an official FHIR package.")
        name = member.name.removeprefix(_FOLDER)
        if member.isreg() and member.name.startswith(_FOLDER) and "/" not in name and name.endswith(".json"):
            yield name, _content(archive, member, name)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> Any:
    if member.size > MAX_MEMBER:
        raise PackageRefused(f"{name} in the package is larger than 32 MiB; send an official FHIR package.")
    file = archive.extractfile(member)
    data = file.read() if file else b""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise PackageRefused(f"{name} in the package is no JSON that can be read; download it again.") from None
