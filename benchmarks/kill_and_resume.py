"""Is a fit that is killed again and again, bit for bit, one that never was? Real processes, SIGKILL, random moments.

python benchmarks/kill_and_resume.py [--short] [--kills 20] [--epochs 1000] [--seed 0]

A process is killed a random number of checkpoints after its start, a random time after it (while Python starts, JAX
compiles, or later), or a random time after it wrote a checkpoint (while it trains or writes). The result is compared
with that of an uninterrupted fit without checkpoints. The exit status is 1 if one bit differs.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from _report import arguments, machine, number, print_table

SCRIPT = Path(__file__).with_name("_resumable_fit.py")
# Seconds until a process is killed by the clock, at most: after its start, and after its first checkpoint.
LATEST = {"its start": 7.0, "a checkpoint": 0.3}


def start(environment: Mapping[str, str], *parts: object) -> subprocess.Popen:
    command = [sys.executable, str(SCRIPT), *map(str, parts)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen) -> None:
    message = process.communicate()[1]
    if process.returncode:
        sys.exit(f"A fit ended with status {process.returncode}:\n{message}")


def newest(directory: Path) -> int:
    """The number of the newest checkpoint, or 0."""
    return max((int(path.stem.removeprefix("fit-")) for path in directory.glob("fit-*.ckpt")), default=0)


def differences(first: Path, second: Path) -> list[str]:
    """The names of the arrays that are not the same bits in both files."""
    a, b = np.load(first), np.load(second)
    names = sorted({*a.files, *b.files})
    return [name for name in names if name not in a or name not in b or a[name].tobytes() != b[name].tobytes()]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, help="how many processes are killed; 20, or 4 with --short")
    parser.add_argument("--epochs", type=int, help="of the whole fit; enough of them for all the kills")
    parser.add_argument("--seed", type=int, default=0)
    options = arguments(__doc__, parser)
    kills = options.kills or (4 if options.short else 20)
    epochs = options.epochs or 50 * kills
    chance = random.Random(options.seed)
    print(f"{machine()}\n{kills} kills, {epochs} epochs, a checkpoint after each\n")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        checkpoints = place / "checkpoints"
        cache = {"JAX_COMPILATION_CACHE_DIR": str(place / "cache"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        environment = {**os.environ, **cache, "TF_CPP_MIN_LOG_LEVEL": "3"}
        # Fills the cache besides, so that the restarts are quick.
        finish(start(environment, place / "whole.npz", epochs))
        rows = []
        while len(rows) < kills:
            before, began = newest(checkpoints), time.monotonic()
            # Of those killed after their start some get nowhere, and all others leave checkpoints behind.
            how = chance.choice(["its start", "a checkpoint", "checkpoints"])
            wait, aim = chance.uniform(0, LATEST.get(how, 0.0)), before + 1
            if how == "checkpoints":
                aim = before + chance.randint(1, 10)
            process = start(environment, place / "killed.npz", epochs, checkpoints)
            while how != "its start" and newest(checkpoints) < aim and process.poll() is None:
                time.sleep(0.001)
            time.sleep(wait)
            process.kill()
            message = process.communicate()[1]
            if process.returncode == 0:
                break
            if process.returncode != -signal.SIGKILL:
                sys.exit(f"A fit ended with status {process.returncode}:\n{message}")
            torn = len(list(checkpoints.glob(".fit-*.tmp"))) if checkpoints.exists() else 0
            rows.append(
                {
                    "kill": str(len(rows) + 1),
                    "after": f"{aim - before} checkpoints" if how == "checkpoints" else f"{number(wait)} s from {how}",
                    "s": number(time.monotonic() - began),
                    "from epoch": str(before),
                    "to epoch": str(newest(checkpoints)),
                    "half-written files": str(torn),
                }
            )
        finish(start(environment, place / "killed.npz", epochs, checkpoints))
        print_table(rows)
        wrong = differences(place / "whole.npz", place / "killed.npz")
    done = f"\n{len(rows)} of {kills} processes were killed, the last at epoch {rows[-1]['to epoch']} of {epochs}."
    print(f"{done} Parameters and losses {f'differ in {wrong}' if wrong else 'are the same bits'}.")
    sys.exit(bool(wrong) or len(rows) < kills)


if __name__ == "__main__":
    main()
