"""Glow on the digits that scikit-learn ships: 1,797 images of 8 by 8 pixels with values from 0 to 16.

A minute or two on a CPU. Prints bits per dimension on held-out images beside those of a Gaussian with full covariance,
and draws samples.

Usage: python examples/digits_glow.py [--epochs 60] [--out out/digits]
"""

import argparse
import math
import pathlib

import jax.random as jr
import matplotlib as mpl
import numpy as np
from sklearn.datasets import load_digits

import flowlib
from flowlib.distributions import Dequantized, bits_per_dim
from flowlib.flows import glow
from flowlib.plot import plot_images, plot_losses, plot_temperatures
from flowlib.train import fit_to_data

SHAPE, VALUES = (1, 8, 8), 17


def load() -> tuple[np.ndarray, np.ndarray]:
    """Images for training and for the test, of whole numbers."""
    images = load_digits().images.reshape(-1, *SHAPE)
    images = images[np.random.default_rng(0).permutation(len(images))]
    return images[:1500], images[1500:]


def bits_of_gaussian(train: np.ndarray, test: np.ndarray) -> float:
    """Of a Gaussian with the mean and covariance of the training images with uniform noise, which is its best fit."""
    rng = np.random.default_rng(0)
    train, test = ((x + rng.random(x.shape)).reshape(len(x), -1) for x in (train, test))
    size = train.shape[1]
    factor = np.linalg.cholesky(np.cov(train, rowvar=False))
    z = np.linalg.solve(factor, (test - train.mean(0)).T)
    log_density = -0.5 * (z**2).sum(0) - np.log(np.diag(factor)).sum() - 0.5 * size * math.log(2 * math.pi)
    return float(-log_density.mean() / size / math.log(2))


def bits_of(flow: Dequantized, images: np.ndarray, num_samples: int) -> float:
    """Of the bound with so many places in the cell of each image."""
    bound = flow.lower_bound(jr.key(3), images, num_samples=num_samples)
    return float(bits_per_dim(bound, SHAPE).mean())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("out/digits"))
    options = parser.parse_args()
    mpl.use("Agg")
    options.out.mkdir(parents=True, exist_ok=True)

    train, test = load()
    flow = glow(jr.key(0), shape=SHAPE, n_values=VALUES, n_levels=2, n_steps=4, nn_width=32)
    flow = flowlib.init_from_data(flow, train)
    flow, losses = fit_to_data(
        jr.key(1), flow, train, learning_rate=1e-3, max_epochs=options.epochs, max_patience=15, ema=0.99
    )
    print(losses.report)
    print(f"Gaussian with full covariance: {bits_of_gaussian(train, test):.3f} bits per dimension on held-out images")
    print(f"Glow: {bits_of(flow, test, 1):.3f}, and {bits_of(flow, test, 16):.3f} of the bound with 16 samples")

    flowlib.save(options.out / "glow.flowlib", flow)
    plot_losses(losses).figure.savefig(options.out / "losses.png", dpi=150)
    samples = flow.sample(jr.key(2), 32)
    for name, axes in {
        "samples": plot_images(np.concatenate([samples, test[:32]]), n_columns=16),
        "temperatures": plot_temperatures(flow, jr.key(4), n=10),
    }.items():
        np.ravel(axes)[0].figure.savefig(options.out / f"{name}.png", dpi=150)
    print(f"Pictures and the flow are in {options.out}. In samples.png the upper two rows are drawn, the lower real.")


if __name__ == "__main__":
    main()
