"""What a second fit costs with a flow built anew in the same way: seconds, and programs compiled.

python benchmarks/refit.py [--short]
"""

import importlib
from functools import partial

import jax.random as jr

from _compilations import count_compilations
from _flows import DIM, FLOWS, LIBRARIES, data, make
from _report import arguments, machine, number, print_table
from _timing import seconds

ROWS, EPOCHS = 9000, 3


def main():
    options = arguments(__doc__)
    print(f"{machine()}\n{ROWS} rows of {DIM}, {EPOCHS} epochs\n")
    x = data(ROWS)
    rows = []
    for name in ("coupling RQS", "triangular spline") if options.short else FLOWS:
        for library in LIBRARIES:
            fit_to_data = importlib.import_module(f"{library}.train").fit_to_data
            row = {"flow": name, "library": library}
            for which in ("first", "second"):
                flow, built = count_compilations(partial(make, library, name))
                fit = partial(fit_to_data, jr.key(2), flow, x, max_epochs=EPOCHS, show_progress=False)
                took, fitted = count_compilations(partial(seconds, fit))
                row |= {
                    f"{which} fit, s": number(took),
                    f"programs compiled by {which} fit": str(fitted),
                    f"by building the {which} flow": str(built),
                }
            rows.append(row)
    print_table(rows)


if __name__ == "__main__":
    main()
