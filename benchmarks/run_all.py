"""All benchmarks, one after another, into `docs/benchmarks.md`.

The text of the page is in `benchmarks/page.md`: a line `{{ script }}` becomes the command and what it printed. A script
that fails leaves a line that says so, and makes the exit status 1.

Usage: python benchmarks/run_all.py [--short] [--only fit_warm refit ...]
"""

import argparse
import datetime as dt
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from _report import arguments, machine

FOLDER = Path(__file__).parent
TEMPLATE, PAGE, GPU = FOLDER / "page.md", FOLDER.parent / "docs" / "benchmarks.md", FOLDER / "gpu_results.md"
PLACE = re.compile(r"^\{\{ (\w+) \}\}$", re.MULTILINE)


def section(script: str, short: bool) -> tuple[str, bool]:
    """The part of the page about one script, and whether it ran."""
    command = ["python", f"benchmarks/{script}.py", *(["--short"] if short else [])]
    print(f"{' '.join(command)} ...", end=" ", flush=True)
    start = time.monotonic()
    done = subprocess.run([sys.executable, *command[1:]], cwd=FOLDER.parent, capture_output=True, text=True)
    print(f"{time.monotonic() - start:.0f} s")
    shown = f"    {' '.join(command)}\n\n"
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return f"{shown}Failed when this page was made: `{last}`", False
    # The first line is the machine's, which the page has at its head.
    return shown + done.stdout.partition("\n")[2].strip(), True


def main():
    template = TEMPLATE.read_text()
    scripts = [script for script in PLACE.findall(template) if script not in ("header", "gpu_results")]
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="+", choices=scripts, help="leave the other parts of the page empty")
    options = arguments(__doc__, parser)
    form = "short" if options.short else "long"
    parts = {"header": f"Made on {dt.date.today()} by the {form} form of each script. {machine()}."}
    parts["gpu_results"] = GPU.read_text().strip() if GPU.exists() else "Not measured yet."
    failed = []
    for script in scripts:
        if options.only and script not in options.only:
            parts[script] = "Not run when this page was made."
            continue
        parts[script], ran = section(script, options.short)
        failed += [] if ran else [script]
    # A run that is cut short leaves the old page whole.
    unfinished = PAGE.with_suffix(".unfinished")
    unfinished.write_text(PLACE.sub(lambda place: parts[place[1]], template))
    os.replace(unfinished, PAGE)
    print(f"wrote {PAGE.relative_to(FOLDER.parent)}")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
