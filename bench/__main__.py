"""`make bench`: every benchmark beside its ceiling, each a ratio taken in one interleaved run.

Writes `bench/results/latest.json`. Absolute figures depend on the machine; quote the ratios.
"""

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PROGRAMS = sorted(path.stem for path in HERE.glob("*_speed.py"))


def main() -> int:
    """Runs them one after the other; 1 if one failed to run. A goal that is missed is shown, it fails nothing."""
    console = Console(highlight=False)
    results, failed = {}, 0
    for name in sys.argv[1:] or PROGRAMS:
        console.print(f"[bold]{name}[/] ...")
        done = subprocess.run([sys.executable, "-m", f"bench.{name}"], capture_output=True, text=True, check=False)
        if done.returncode:
            failed = 1
            console.print(done.stderr[-2000:])
            continue
        results[name] = json.loads(done.stdout[done.stdout.index("{") :])
        console.print_json(data=results[name])
    RESULTS.mkdir(exist_ok=True)
    about = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
    }
    (RESULTS / "latest.json").write_text(json.dumps({"about": about, "results": results}, indent=2) + "\n")
    console.print(f"Written to {RESULTS / 'latest.json'}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
