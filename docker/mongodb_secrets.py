"""Makes the database's secrets beside those of `access-facade init`: `python docker/mongodb_secrets.py DIRECTORY`."""

import base64
import os
import secrets
import sys
from pathlib import Path

NAMES = {"mongodb.keyfile": 756, "mongodb-admin.password": 32, "mongodb-facade.password": 32}  # random bytes in each


def make(directory: Path) -> list[Path]:
    """Writes the files that are not there yet, readable by their owner only."""
    made = []
    for name, size in NAMES.items():
        path = directory / name
        if not path.exists():
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "wb") as file:
                file.write(base64.b64encode(secrets.token_bytes(size)) + b"\n")
            made.append(path)
    return made


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        sys.exit("usage: python docker/mongodb_secrets.py DIRECTORY (the one that `access-facade init` made)")
    for written in make(Path(sys.argv[1])):
        print(f"Wrote {written}")
