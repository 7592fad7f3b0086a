"""Flows on real data, from fit to file: run it with `make quickstart`.

1. The density of thirty columns, in their own units, against Gaussian models.
2. The density of some columns given others, sampled for several conditions in one call.
3. A variational fit to an unnormalized density whose normaliser is known.
4. A picture of losses, density, data and samples; the model saved, loaded, and compared.

Ends with status 1 if a flow does not do what it should.
"""

import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.scipy.special import erf, logsumexp
from matplotlib.figure import Figure
from sklearn.datasets import load_breast_cancer
from sklearn.mixture import GaussianMixture

import flowlib
from flowlib.bijections import RationalQuadraticSpline
from flowlib.distributions import StandardNormal
from flowlib.flows import coupling_flow, masked_autoregressive_flow
from flowlib.plot import plot_density, plot_losses
from flowlib.train import fit_to_data, fit_to_variational_target

OUT = Path("out")
N_TEST, VAL_PROP = 114, 0.125


def main() -> int:
    """Run the four parts and say which of them failed."""
    start = time.perf_counter()
    # A second run starts at once: what JAX compiles is kept.
    flowlib.keep_compiled()
    OUT.mkdir(exist_ok=True)
    columns = load_breast_cancer()
    rows = columns.data[np.random.default_rng(0).permutation(len(columns.data))]
    kept = {
        "the flow beats both Gaussian models": tabular_density(rows[:N_TEST], rows[N_TEST:]),
        "the conditional flow beats a linear model": conditional_density(rows, list(columns.feature_names)),
        "the log normaliser is within 0.05": variational_fit(),
        "the loaded model gives the same numbers": picture_and_file(),
    }
    print(f"\nDone in {time.perf_counter() - start:.0f} s.")
    for promise, held in kept.items():
        print(f"  {'yes' if held else 'NO '}  {promise}")
    return 0 if all(kept.values()) else 1


def tabular_density(test: np.ndarray, rows: np.ndarray) -> bool:
    """Held-out log-likelihoods of a flow, of a Gaussian, and of the mixture that is best on validation rows."""
    print(f"\n1. Breast cancer data: {len(rows)} rows to fit, {len(test)} held out, {rows.shape[1]} columns")
    mean, std = rows.mean(axis=0), rows.std(axis=0)
    flow = masked_autoregressive_flow(jr.key(1), base_dist=StandardNormal((len(mean),)), flow_layers=4)
    flow, _ = fit_to_data(
        jr.key(2),
        flow,
        rows,
        learning_rate=3e-3,
        max_epochs=300,
        max_patience=30,
        batch_size=64,
        val_prop=VAL_PROP,
    )

    def standardise(x):
        return (x - mean) / std

    def score(model):
        return model.score(standardise(test)) - np.log(std).sum()

    of_gaussian = score(GaussianMixture(1).fit(standardise(rows)))
    of_mixture = score(best_mixture(standardise(rows)))
    of_flow = float(flow.log_prob(test).mean())
    print("   mean held-out log-likelihood, nats a row (in the columns' units | standardised)")
    names = ["masked autoregressive flow", "Gaussian mixture", "Gaussian"]
    for name, value in zip(names, [of_flow, of_mixture, of_gaussian], strict=True):
        print(f"   {name:28}{value:8.2f} | {value + np.log(std).sum():8.2f}")
    print(f"   one draw, first columns: {np.asarray(flow.sample(jr.key(3)))[:4].round(2)}")
    return of_flow > max(of_mixture, of_gaussian)


def best_mixture(rows: np.ndarray) -> GaussianMixture:
    """The mixture with the best likelihood on validation rows, fitted again to all rows."""
    n_val = round(VAL_PROP * len(rows))
    train, val = rows[n_val:], rows[:n_val]
    sizes = {"full": range(1, 7), "tied": range(2, 9, 2), "diag": range(2, 21, 3)}
    mixtures = [
        GaussianMixture(number, covariance_type=kind, reg_covar=regularisation, random_state=0).fit(train)
        for kind, numbers in sizes.items()
        for number in numbers
        for regularisation in (1e-3, 1e-2)
    ]
    best = max(mixtures, key=lambda mixture: mixture.score(val))
    print(f"   best of the mixtures: {best.n_components} components, {best.covariance_type} covariance")
    return GaussianMixture(**best.get_params()).fit(rows)


def conditional_density(rows: np.ndarray, names: list[str]) -> bool:
    """The largest area and concavity of a tumour's cells given their mean radius and texture."""
    events, conditions = ["worst area", "worst concavity"], ["mean radius", "mean texture"]
    print(f"\n2. {' and '.join(events)} given {' and '.join(conditions)}")
    y = rows[:, [names.index(name) for name in events]]
    x = rows[:, [names.index(name) for name in conditions]]
    (y_test, y), (x_test, x) = (np.split(z, [N_TEST]) for z in (y, x))

    flow = coupling_flow(
        jr.key(4),
        base_dist=StandardNormal((2,)),
        cond_dim=2,
        flow_layers=6,
        nn_width=20,
    )
    flow, _ = fit_to_data(
        jr.key(5), flow, (y, x), learning_rate=3e-3, max_epochs=300, max_patience=30, val_prop=VAL_PROP
    )

    of_flow = float(flow.log_prob(y_test, x_test).mean())
    of_linear = linear_gaussian_score(y, x, y_test, x_test)
    print(f"   mean held-out log-likelihood: flow {of_flow:.2f}, linear regression {of_linear:.2f}")
    chosen = jnp.array([[10.0, 19.0], [14.0, 19.0], [20.0, 19.0]])
    draws = flow.sample(jr.key(6), 2000, condition=chosen)
    for condition, mean, std in zip(chosen, draws.mean(axis=0), draws.std(axis=0), strict=True):
        print(
            f"   radius {condition[0]:4.1f}: area {mean[0]:6.0f} +- {std[0]:4.0f},"
            f" concavity {mean[1]:5.2f} +- {std[1]:4.2f}"
        )
    return of_flow > of_linear and draws.shape == (2000, 3, 2)


def linear_gaussian_score(y: np.ndarray, x: np.ndarray, y_test: np.ndarray, x_test: np.ndarray) -> float:
    """Held-out mean log-likelihood of a linear regression with Gaussian residuals."""

    def design(x):
        return np.column_stack([np.ones(len(x)), x])

    weights = np.linalg.lstsq(design(x), y, rcond=None)[0]
    residuals, held_out = y - design(x) @ weights, y_test - design(x_test) @ weights
    covariance = residuals.T @ residuals / len(y)
    distances = np.einsum("ni,ij,nj->n", held_out, np.linalg.inv(covariance), held_out)
    return float(-0.5 * (distances.mean() + np.linalg.slogdet(2 * np.pi * covariance)[1]))


RADIUS, THICKNESS = 2.0, 0.4


def ring(x: jax.Array) -> jax.Array:
    """An unnormalized log density on the plane: a blurred circle."""
    radius = jnp.sqrt(x @ x + 1e-12)
    return -0.5 * ((radius - RADIUS) / THICKNESS) ** 2


def variational_fit() -> bool:
    """Fit to the ring, and estimate its normaliser by importance sampling."""
    print("\n3. A variational fit to a ring")
    flow = coupling_flow(
        jr.key(7),
        base_dist=StandardNormal((2,)),
        transformer=RationalQuadraticSpline(knots=8, interval=4),
        flow_layers=6,
        nn_width=40,
        invert=False,
    )
    flow, losses = fit_to_variational_target(jr.key(8), flow, ring, steps=1500, num_samples=256, learning_rate=3e-3)

    x, log_prob = flow.sample_and_log_prob(jr.key(9), 20_000)
    log_weights = jax.vmap(ring)(x) - log_prob
    estimate = float(logsumexp(log_weights)) - np.log(len(x))
    effective = float(jnp.exp(2 * logsumexp(log_weights) - logsumexp(2 * log_weights)))
    # The integral of 2 pi r exp(-((r - R) / s)^2 / 2) over r > 0.
    ratio = RADIUS / THICKNESS
    truth = np.log(
        2
        * np.pi
        * (
            THICKNESS**2 * np.exp(-(ratio**2) / 2)
            + RADIUS * THICKNESS * np.sqrt(np.pi / 2) * (1 + float(erf(ratio / np.sqrt(2))))
        )
    )
    print(f"   evidence lower bound   {-np.mean(losses[-50:]):8.4f}")
    print(f"   log normaliser         {estimate:8.4f}, exactly {truth:.4f}: error {estimate - truth:+.4f}")
    print(f"   effective sample size  {effective:8.0f} of {len(x)}")
    return abs(estimate - truth) < 0.05


def picture_and_file() -> bool:
    """Two moons: losses, density, data and samples; then the model through a file."""
    print("\n4. A picture and a file")
    x = flowlib.tasks.two_moons(jr.key(10), 2000)
    flow = coupling_flow(
        jr.key(11),
        base_dist=StandardNormal((2,)),
        transformer=RationalQuadraticSpline(knots=8, interval=4),
        flow_layers=6,
        nn_width=40,
    )
    flow, losses = fit_to_data(jr.key(12), flow, x, learning_rate=3e-3, max_epochs=100, max_patience=20)
    samples = flow.sample(jr.key(13), 2000)
    figure = Figure(figsize=(13, 4.4), layout="constrained")
    axes = figure.subplots(1, 3)
    plot_losses(losses, ax=axes[0])
    plot_density(flow, data=x, limits=(-4.5, 4.5), resolution=300, ax=axes[1])
    plot_density(flow, samples=samples, limits=(-4.5, 4.5), resolution=300, ax=axes[2])
    for ax, title in zip(axes, ["losses", "density of the flow, and data", "density, and samples"], strict=True):
        ax.set_title(title)
    figure.savefig(OUT / "quickstart.png", dpi=120)
    print(f"   picture in {OUT / 'quickstart.png'}")

    path = OUT / "quickstart.flowlib"
    flowlib.save(path, flow)
    loaded = flowlib.load(path)
    print(f"   saved and loaded {path}:\n{loaded}")
    same_density = (loaded.log_prob(x) == flow.log_prob(x)).all()
    return bool(same_density and (loaded.sample(jr.key(13), 2000) == samples).all())


if __name__ == "__main__":
    sys.exit(main())
