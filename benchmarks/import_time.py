"""What importing flowlib costs, beside importing jax, equinox and optax alone.

python benchmarks/import_time.py [--short]
"""

import os
import subprocess
import sys

from _report import arguments, machine, print_table, ratio, spread

BARE = "jax, equinox, optax"
IMPORTS = (BARE, f"{BARE}, flowlib", "flowlib.flows, flowlib.train", "flowjax.flows, flowjax.train")


def once(names: str) -> float:
    # The timing module would import jax before the clock starts.
    code = f"import time; start = time.perf_counter(); import {names}; print(time.perf_counter() - start)"
    # Compiled once, as by an installer, also where the environment keeps Python from writing what it compiled.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", code]
    return float(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment).stdout)


def main():
    options = arguments(__doc__)
    print(f"{machine()}\n")
    for names in IMPORTS:
        once(names)  # files into memory
    times: dict[str, list[float]] = {names: [] for names in IMPORTS}
    for _ in range(3 if options.short else 11):
        for names in IMPORTS:
            times[names].append(once(names))
    rows = []
    for names, each in times.items():
        rows.append({"imported": f"`{names}`", "s": spread(each), "to the first": ratio(each, times[BARE])})
    print_table(rows)


if __name__ == "__main__":
    main()
