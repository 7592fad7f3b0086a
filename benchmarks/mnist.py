"""Bits per dimension on MNIST: flows of images, trained on uniform noise within the cells of the 256 values.

Published (uniform dequantization): a Gaussian with full covariance 2.01, RealNVP 1.06, Glow 1.05. The whole run trains
for half an hour on a GPU; `--short` is the same with a small Glow for a few minutes on any machine.

Usage: python benchmarks/mnist.py --data mnist.npz [--short] [--flow glow] [--minutes 30] [--picture out/mnist.png]
"""

import argparse
import pathlib
import time

import jax.random as jr
import numpy as np
import optax

import flowlib
from _report import arguments, machine, print_table
from flowlib import flows
from flowlib.distributions import Dequantized, bits_per_dim
from flowlib.train import fit_to_data

SHAPE = (1, 28, 28)
SIZES = {
    "glow": ({"n_steps": 16, "nn_width": 128}, {"n_steps": 4, "nn_width": 24}),
    "realnvp_image": ({"nn_width": 64, "nn_depth": 4}, {"nn_width": 16, "nn_depth": 1}),
    "flow_plus_plus": ({"nn_width": 64, "nn_depth": 4, "components": 16}, {"nn_width": 16, "nn_depth": 1}),
}


def load(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Images for training and for the test, of whole numbers."""
    with np.load(path) as file:
        return tuple(file[name].reshape(-1, *SHAPE) for name in ("x_train", "x_test"))


def gaussian_bits(train: np.ndarray, test: np.ndarray) -> float:
    """Of the Gaussian with mean and covariance of dequantized training images, a little of the identity added."""
    rng = np.random.default_rng(0)
    rows, size = (images.reshape(len(images), -1) + rng.random((len(images), 784)) for images in (train, test)), 784
    train, test = rows
    mean, covariance = train.mean(0), np.cov(train, rowvar=False)
    factor = np.linalg.cholesky(covariance)
    z = np.linalg.solve(factor, (test - mean).T)
    log_density = -0.5 * (z**2).sum(0) - np.log(np.diag(factor)).sum() - 0.5 * size * np.log(2 * np.pi)
    return float(-log_density.mean() / size / np.log(2))


def test_bits(flow: Dequantized, images: np.ndarray, samples: int) -> float:
    """Bits per dimension of the bound, the mean over all images."""
    parts = [
        bits_per_dim(flow.lower_bound(jr.key(i), images[i : i + 250], num_samples=samples), SHAPE)
        for i in range(0, len(images), 250)
    ]
    return float(np.concatenate(parts).mean())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True, help="the path of mnist.npz")
    parser.add_argument("--flow", choices=list(SIZES), default="glow")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--picture", type=pathlib.Path, default=pathlib.Path("out/mnist.png"))
    options = arguments(__doc__, parser)
    minutes = options.minutes or (2 if options.short else 30)
    train, test = load(options.data)
    test = test[:1000] if options.short else test
    flow = getattr(flows, options.flow)(jr.key(0), shape=SHAPE, **SIZES[options.flow][options.short])
    flow = flowlib.init_from_data(flow, train[:256])
    start = time.perf_counter()
    flow, losses = fit_to_data(
        jr.key(1), flow, train, batch_size=options.batch_size, max_epochs=10_000, max_patience=10_000,
        ema=0.99 if options.short else 0.999,  # of the short run, 0.999 would be a mean since the beginning
        optimizer=optax.chain(optax.clip_by_global_norm(100.0), optax.adam(options.learning_rate)),
        max_seconds=60 * minutes, val_prop=0.01,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    print(f"{machine()}\n{losses.report}\n")
    row = {
        "flow": options.flow,
        "parameters": f"{flowlib.count_parameters(flow):,}",
        "training": f"{seconds / 60:.1f} min, {len(losses['train'])} epochs",
        "test, bits/dim": f"{test_bits(flow, test, 1):.3f}",
        "of 16 samples": f"{test_bits(flow, test[:1000], 16):.3f}",
        "Gaussian": f"{gaussian_bits(train, test):.3f}",
    }
    print_table([row])
    picture(flow, options.picture)


def picture(flow: Dequantized, path: pathlib.Path) -> None:
    """Samples at several temperatures."""
    from flowlib.plot import plot_temperatures

    path.parent.mkdir(parents=True, exist_ok=True)
    axes = plot_temperatures(flow, jr.key(2), n=10)
    np.ravel(axes)[0].figure.savefig(path, dpi=150)
    print(f"\nSamples: {path}")


if __name__ == "__main__":
    main()
