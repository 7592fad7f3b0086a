"""Densities that are no flows: a Gaussian, and a mixture and a kernel density chosen by cross-validation."""

import numpy as np
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity

_FOLDS = 5


def classics(train: np.ndarray, test: np.ndarray, seed: int) -> dict[str, float]:
    """Mean log density of the test rows, in the units of the data, by name."""
    location, scale = train.mean(axis=0), train.std(axis=0)
    x, z = (train - location) / scale, (test - location) / scale
    models = {
        "Gaussian": GaussianMixture(1),
        "mixture": _chosen(
            GaussianMixture(reg_covar=1e-6, random_state=seed, max_iter=300),
            {"n_components": _components(len(x)), "covariance_type": ["full", "diag", "tied"]},
        ),
        "kernel": _chosen(KernelDensity(), {"bandwidth": np.geomspace(0.05, 1, 12)}),
    }
    # scikit-learn's kernel density scores by the sum, the mixtures by the mean.
    return {
        name: float(model.fit(x[:5000]).score_samples(z).mean() - np.log(scale).sum())
        if name == "kernel"
        else float(model.fit(x).score_samples(z).mean() - np.log(scale).sum())
        for name, model in models.items()
    }


def _chosen(model, grid):
    return GridSearchCV(model, grid, cv=_FOLDS, error_score=-np.inf)


def _components(rows):
    return [n for n in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32) if n <= max(rows // 20, 1)]
