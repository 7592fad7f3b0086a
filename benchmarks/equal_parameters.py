"""flowlib beside zuko, nflows, normflows and distrax at equal parameters: the same values, to rounding.

Parameters and weights are drawn far from those at the start and given to both libraries, in the form that each wants
them in; then both get the same rows, in float64. The inverse is flowlib's of the peer's values, which should give the
rows back. What is not installed is skipped. The exit status is 1 if a difference is above its tolerance.

Usage: python benchmarks/equal_parameters.py [--short] [--rows 1000]
"""

import argparse
import importlib.metadata

import jax
import numpy as np

import _equal_flows as flows
import _equal_maps as maps
from _pair import differences
from _report import arguments, machine, print_table

TOLERANCE = 1e-12
# Some inverses are a search to 1e-10 (1 + |x|), and where a map is nearly flat rounding of y is more in x.
INVERSE_TOLERANCE = 1e-10
PAIRS = {
    "affine coupling, 3 layers": (flows.nflows_coupling, flows.normflows_coupling),
    "spline coupling, 3 layers": (flows.distrax_coupling,),
    "MADE, affine, 3 layers": (flows.nflows_autoregressive,),
    "MADE, affine, 3 layers, with a condition": (flows.zuko_autoregressive,),
    "rational-quadratic spline": (maps.nflows_spline, maps.zuko_spline, maps.distrax_spline),
    "circular spline": (maps.normflows_circular, maps.zuko_circular, maps.distrax_circular),
    "sum of squares": (maps.zuko_sum_of_squares,),
    "Bernstein polynomial": (maps.zuko_bernstein,),
    "Bernstein polynomial, bounded": (maps.zuko_bounded_bernstein,),
    "LU linear": (maps.nflows_linear, maps.zuko_linear),
    "planar": (maps.normflows_planar,),
    "radial": (maps.normflows_radial,),
}
COLUMNS = ("y", "log-det", "inverse", "inverse log-det", "log_prob")
PEERS = ("zuko", "nflows", "normflows", "distrax")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, help="defaults to 1000, or 100 with --short")
    options = arguments(__doc__, parser)
    rows = options.rows or (100 if options.short else 1000)
    jax.config.update("jax_enable_x64", True)
    print(f"{machine()}\n{', '.join(map(version, PEERS))}")
    print(f"{rows:,} rows in float64; tolerance {TOLERANCE:g}, of an inverse {INVERSE_TOLERANCE:g}\n")
    table, failed, skipped = [], [], {}
    for kind, makers in PAIRS.items():
        for make in makers:
            peer = make.__name__.partition("_")[0]
            try:
                pair = make(np.random.default_rng(0), rows)
            except ImportError as error:
                skipped[peer] = str(error)
                continue
            found = differences(pair)
            for name, value in found.items():
                if not value <= (INVERSE_TOLERANCE if name.startswith("inverse") else TOLERANCE):
                    failed.append(f"{name} of {kind} beside {peer}: {value:.2e}")
            cells = {name: f"{found[name]:.0e}" if name in found else "" for name in COLUMNS}
            table.append({"map": kind, "peer": peer} | cells)
    for peer, message in skipped.items():
        print(f"{peer} skipped: {message}\n")
    if table:
        print_table(table)
    if failed:
        raise SystemExit("above its tolerance: " + "; ".join(failed))


def version(package: str) -> str:
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return f"{package} not installed"


if __name__ == "__main__":
    main()
