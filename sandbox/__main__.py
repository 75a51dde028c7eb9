"""`python -m sandbox`: the stand-in CMS."""

import argparse
import sys
from pathlib import Path

from sandbox.app import Tls, serve
from sandbox.settings import METHODS, BadSettings


def main() -> int:
    """Runs it; 1 if it cannot start."""
    parser = argparse.ArgumentParser(prog="python -m sandbox", description="A stand-in for CMS's ACCESS API.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8090, help="0 takes a free one")
    parser.add_argument("--latency", type=float, help="seconds until a submission is decided (default 2)")
    parser.add_argument("--data", type=Path, help="SQLite file that keeps the state (default: in memory)")
    parser.add_argument("--config", type=Path, help="TOML with [[client]], [smtp] and [sandbox]")
    parser.add_argument(
        "--auth-method", action="append", choices=METHODS, help="allowed at the token endpoint (default all)"
    )
    parser.add_argument("--certificate", type=Path, help="PEM with its chain: speak TLS 1.3, as CMS does")
    parser.add_argument("--private-key", type=Path, help="the certificate's key, PEM, not encrypted")
    given = parser.parse_args()
    if (given.certificate is None) is not (given.private_key is None):
        parser.error("--certificate and --private-key go together")
    tls = Tls(given.certificate, given.private_key) if given.certificate else None
    methods = tuple(given.auth_method) if given.auth_method else None
    try:
        serve(host=given.host, port=given.port, latency=given.latency, data=given.data, config=given.config,
              auth_methods=methods, tls=tls)  # fmt: skip
    except (BadSettings, OSError) as bad:
        sys.stderr.write(f"{bad}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
