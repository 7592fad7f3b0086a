"""Targets of a user's own: what is wrong with them is said of them."""

from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from flowlib.bijections import Affine
from flowlib.distributions import StandardNormal, Transformed
from flowlib.errors import NonFiniteWarning
from flowlib.train import fit_to_key_based_loss, fit_to_variational_target
from flowlib.train.losses import ElboLoss

KEY = jr.key(0)
FLOW = Transformed(StandardNormal((2,)), Affine(np.zeros(2)))
QUIET: Any = {"steps": 3, "num_samples": 8, "show_progress": False}


def fit(target, **options):
    return fit_to_variational_target(KEY, FLOW, target, **{**QUIET, **options})


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (lambda x: jnp.where(x[0] > 0, -jnp.inf, -x @ x), r"The target is -inf at x = \[ ?[0-9].*, .*\]"),
        (lambda x: jnp.log(x[0]), r"The target is nan at x = \[-[0-9].*, .*\]"),
        (
            lambda x: jnp.sqrt(jnp.abs(x[0]) * 0) - x @ x,
            r"The target is finite, but its gradient is \[nan, .*at x = \[",
        ),
    ],
)
def test_a_target_that_is_not_finite_is_named_with_the_point(target, said):
    with pytest.warns(NonFiniteWarning, match=said) as caught:
        fitted, losses = fit(target)
    (warning,) = caught
    if "gradient" not in said:
        assert "flowlib.distributions.with_support(dist, support)" in str(warning.message)
        assert "of 8 draws" in str(warning.message)
        assert len(losses) == 1
    np.testing.assert_array_equal(jax.tree.leaves(fitted)[0], 0)


def test_the_point_is_one_of_the_draws_of_the_step_that_failed():
    def target(x):
        return jnp.where(x[1] > 1.0, -jnp.inf, -x @ x)

    with pytest.warns(NonFiniteWarning, match="The target is -inf at x") as caught:
        fit(target, steps=200, learning_rate=1e-3)
    point = str(caught[0].message).partition("x = [")[2].partition("]")[0].split(",")
    assert len(point) == 2
    assert float(point[1]) > 1


def test_a_loss_of_another_kind_stops_as_before():
    with pytest.warns(NonFiniteWarning, match=r"became nan at step 0 .*parameters are returned\.$"):
        fit_to_key_based_loss(KEY, FLOW, loss_fn=lambda p, s, key: jnp.nan * p.bijection.loc.sum(), steps=2,
                              show_progress=False)  # fmt: skip


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (lambda v: -(v[:, 0] ** 2), "Too many indices"),
        (lambda v: -np.sum(np.asarray(v) ** 2), "numpy.ndarray conversion"),
        (lambda v: -v @ v if v[0] > 0 else -2 * v @ v, "boolean conversion"),
        (lambda v: -jnp.sum(v**2, axis=1)[0], "axis 1"),
        (lambda v: v @ jnp.ones(3), "contracting dimensions"),
    ],
)
def test_a_target_for_a_batch_or_in_numpy_gets_a_hint(target, said):
    with pytest.raises(TypeError, match=f"target failed: .*{said}") as caught:
        fit(target)
    assert "It sees ONE event, of shape (2,), not a batch" in str(caught.value)
    assert "jax.numpy" in str(caught.value)
    assert caught.value.__cause__ is not None


def test_targets_that_return_something_else():
    for target, dtype in (
        (lambda x: x[0].astype(jnp.int32), "int32"),
        (lambda x: x[0] > 0, "bool"),
        (lambda x: 0, "int"),
    ):
        with pytest.raises(TypeError, match=f"target expected to return a float, got {dtype}"):
            fit(target)
    with pytest.raises(ValueError, match=r"a scalar for one event of shape \(2,\), got shape \(2,\)"):
        fit(lambda x: x)
    with pytest.raises(ValueError, match="a scalar for one event"):
        ElboLoss(lambda x: x, 3)(*_halves(), KEY)


def _halves():
    from flowlib.parameters import partition_trainable

    return partition_trainable(FLOW)


def test_options_that_there_are_not():
    with pytest.raises(
        TypeError, match=r"no argument support: .*flowlib\.distributions\.with_support\(dist, support\)"
    ):
        fit(lambda x: -x @ x, support="positive")
    with pytest.raises(TypeError, match="fit_to_variational_target has no argument max_epochs"):
        fit(lambda x: -x @ x, max_epochs=3)
