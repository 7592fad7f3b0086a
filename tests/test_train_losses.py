"""The losses, against sums written out and closed forms."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

from flowlib.distributions import StandardNormal, Uniform
from flowlib.parameters import partition_trainable
from flowlib.train import ContrastiveLoss, ElboLoss, MaximumLikelihoodLoss, fit_to_data
from flowlib.train import losses as losses_module
from flowlib.train._losses import _others
from train_tools import Regression, gaussian

X = jnp.asarray(np.random.default_rng(0).normal(size=8), float)
C = jnp.asarray(np.random.default_rng(1).normal(size=8), float)


def test_the_names_are_where_flowjax_has_them():
    assert losses_module.MaximumLikelihoodLoss is MaximumLikelihoodLoss
    assert losses_module.ContrastiveLoss is ContrastiveLoss
    assert losses_module.ElboLoss is ElboLoss


def test_maximum_likelihood_is_the_mean_negative_log_density(key):
    loss = MaximumLikelihoodLoss()
    expected = -stats.norm.logpdf(X - 0.7 * C).mean()
    parts = partition_trainable(Regression(0.7))
    assert loss(*parts, X, C) == pytest.approx(expected, rel=1e-6)
    assert loss(*parts, X, C, key) == loss(*parts, X, condition=C, key=key) == loss(*parts, X, C)
    np.testing.assert_allclose(loss.per_row(*parts, X, C), -stats.norm.logpdf(X - 0.7 * C), rtol=1e-5)


def contrastive_by_hand(weight, x, c, contrast, log_prior):
    total = 0.0
    for i in range(len(x)):
        atoms = np.array([i, *contrast[i]])
        logits = stats.norm.logpdf(x[atoms] - weight * c[i]) - log_prior(x[atoms])
        total += logsumexp(logits) - logits[0]
    return total / len(x)


def test_contrastive_loss_with_all_other_rows(key):
    # With every other row as contrast nothing is left to chance.
    contrast = [[j for j in range(8) if j != i] for i in range(8)]
    parts = partition_trainable(Regression(0.7))
    expected = contrastive_by_hand(0.7, np.asarray(X), np.asarray(C), contrast, lambda x: stats.norm.logpdf(x))
    assert ContrastiveLoss(StandardNormal(), 7)(*parts, X, C, key) == pytest.approx(expected, rel=1e-5)


def test_contrast_is_drawn_from_the_other_rows_without_replacement(key):
    draws = np.asarray(jax.vmap(lambda key: _others(key, 5, 3))(jr.split(key, 2000)))
    assert draws.shape == (2000, 5, 3)
    own = np.arange(5)[:, None]
    assert not (draws == own).any()
    assert (np.diff(np.sort(draws, axis=-1), axis=-1) > 0).all()
    for row in range(5):
        counts = np.bincount(draws[:, row].ravel(), minlength=5)[[j for j in range(5) if j != row]]
        assert stats.chisquare(counts).pvalue > 1e-4


def test_rows_outside_the_prior_are_no_contrast_and_no_nan(key):
    prior = Uniform(-2.0, 2.0)
    x = X.at[3].set(5.0)
    loss = ContrastiveLoss(prior, 7)
    parts = partition_trainable(Regression(0.7))
    rows = np.asarray(loss.per_row(*parts, x, C, key=key))
    assert rows[3] == np.inf
    others = np.delete(np.arange(8), 3)
    expected = contrastive_by_hand(
        0.7, np.asarray(x)[others], np.asarray(C)[others], [[j for j in range(7) if j != i] for i in range(7)],
        lambda x: np.full(len(x), -np.log(4)),
    )  # fmt: skip
    assert rows[others].mean() == pytest.approx(expected, rel=1e-5)
    grads = jax.grad(lambda params: loss.per_row(params, parts[1], x, C, key=key)[others].mean())(parts[0])
    assert np.isfinite(grads.weight)
    with pytest.raises(ValueError, match="row 3 outside"):
        fit_to_data(key, Regression(), (x, C), loss_fn=loss, show_progress=False)


def test_a_contrastive_fit_uses_every_row_and_compares_epochs_on_equal_terms(key):
    keys = jr.split(key)
    theta = jr.normal(keys[0], (300,), float)
    c = theta + jr.normal(keys[1], (300,), float)
    # 270 rows in batches of 32 leave 14; 30 for validation are fewer than a batch.
    kwargs = {"loss_fn": ContrastiveLoss(StandardNormal(), 5), "batch_size": 32, "show_progress": False}
    fitted, losses = fit_to_data(key, Regression(), (theta, c), learning_rate=0.05, max_epochs=5, **kwargs)
    assert fitted.weight > 0.1
    assert losses["val"][-1] < np.log(6)
    # The contrast of the validation rows is drawn once: without training the loss stands still.
    _, losses = fit_to_data(key, Regression(0.7), (theta, c), learning_rate=0.0, max_epochs=5, **kwargs)
    assert len(set(losses["val"])) == 1
    assert len(set(losses["train"])) > 1


def test_few_validation_rows_borrow_their_contrast(key):
    # One validation row, and contrast of nine.
    loss = ContrastiveLoss(StandardNormal(), 9)
    x = jnp.linspace(-1, 1, 12, dtype=float)
    _, losses = fit_to_data(
        key, Regression(), (x, x), loss_fn=loss, batch_size=10, learning_rate=0.0, max_epochs=2, show_progress=False
    )
    # At weight 0 the density is the prior's, and all ten atoms are alike.
    np.testing.assert_allclose(losses["val"] + losses["train"], np.log(10), rtol=1e-6)


def test_too_few_rows_for_the_contrast_are_an_error(key):
    loss = ContrastiveLoss(StandardNormal(), 8)
    with pytest.raises(ValueError, match="more rows in a batch than n_contrastive=8, got 8"):
        loss(*partition_trainable(Regression()), X, C, key)
    with pytest.raises(ValueError, match="more rows in a batch than n_contrastive=8, got 4"):
        fit_to_data(key, Regression(), (X, C), loss_fn=loss, batch_size=4, show_progress=False)
    with pytest.raises(ValueError, match="expected a conditional distribution"):
        fit_to_data(key, gaussian(), jnp.ones((9, 2)), loss_fn=loss, show_progress=False)
    with pytest.raises(ValueError, match="n_contrastive must be an integer of at least 1"):
        ContrastiveLoss(StandardNormal(), 0)


def gaussian_target(x):
    """100 times the density of N((1, -1), diag(2, 0.5)^2)."""
    return np.log(100) + jax.scipy.stats.norm.logpdf(x, jnp.array([1.0, -1.0]), jnp.array([2.0, 0.5])).sum()


@pytest.mark.parametrize("stick_the_landing", [False, True])
def test_the_elbo_of_a_perfect_fit_is_the_log_normaliser(key, stick_the_landing):
    loss = ElboLoss(gaussian_target, 50, stick_the_landing=stick_the_landing)
    params, static = partition_trainable(gaussian((1.0, -1.0), (2.0, 0.5)))
    value, grads = jax.value_and_grad(loss)(params, static, key)
    assert value == pytest.approx(-np.log(100), rel=1e-5)
    norm = max(abs(leaf).max() for leaf in jax.tree.leaves(grads))
    # Without the score term the gradient vanishes for every draw, not only on average.
    assert norm < 1e-5 if stick_the_landing else norm > 1e-2


def test_the_elbo_is_the_kl_divergence_less_the_log_normaliser(key):
    # KL(N(0, I) || N(m, s^2)) in closed form.
    loss = ElboLoss(gaussian_target, 200_000)(*partition_trainable(gaussian()), key)
    m, s = np.array([1.0, -1.0]), np.array([2.0, 0.5])
    kl = (np.log(s) + (1 + m**2) / (2 * s**2) - 0.5).sum()
    # The standard deviation of one draw is about 4.
    assert loss == pytest.approx(kl - np.log(100), abs=0.05)


@pytest.mark.parametrize(
    ("target", "got"),
    [(lambda x: -(x**2), r"shape \(2,\)"), (lambda x: x.sum()[None], r"shape \(1,\)"), (lambda x: (x.sum(),), "tuple")],
)
def test_a_target_that_returns_no_scalar_is_an_error(key, target, got):
    with pytest.raises(ValueError, match=rf"to return a scalar for one event of shape \(2,\), got {got}"):
        ElboLoss(target, 5)(*partition_trainable(gaussian()), key)


def test_losses_of_the_same_kind_are_equal_and_hash():
    assert hash(MaximumLikelihoodLoss()) == hash(MaximumLikelihoodLoss())
    assert MaximumLikelihoodLoss() == MaximumLikelihoodLoss()
    assert ElboLoss(gaussian_target, 5) == ElboLoss(gaussian_target, 5)
    assert jax.tree.structure(ContrastiveLoss(StandardNormal(), 3)) == jax.tree.structure(
        ContrastiveLoss(StandardNormal(), 3)
    )
