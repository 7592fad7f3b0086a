"""Independent joins of unlike distributions."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.stats as stats

import flowlib.bijections as bij
import flowlib.distributions as dst
from cases_distributions import shifted
from contract_tools import EPS, X64
from density_tools import close, kolmogorov_smirnov
from flowlib.flows import coupling_flow
from flowlib.support import Joined, Real
from flowlib.train import fit_to_data

LEVELS = np.array([0.1, 0.9, 0.3, 0.6])


def unlike():
    return dst.Joint([dst.Normal(1.0, 2.0), dst.Exponential(np.array([0.5, 2.0])), dst.Cauchy(-1.0, 0.1)])


def parts() -> list[Any]:
    return [stats.norm(1.0, 2.0), stats.expon(scale=2.0), stats.expon(scale=0.5), stats.cauchy(-1.0, 0.1)]


def test_density_and_closed_forms_are_those_of_scipys_parts():
    joint, x = unlike(), np.array([s.ppf(q) for s, q in zip(parts(), LEVELS, strict=True)])
    close(joint.log_prob(x), sum(s.logpdf(v) for s, v in zip(parts(), x, strict=True)))
    close(joint.cdf(x), LEVELS)
    close(joint.quantile(LEVELS), x)
    close(joint.entropy(), sum(s.entropy() for s in parts()))
    close(joint.mean, [1.0, 2.0, 0.5, np.nan])
    close(joint.variance, [4.0, 4.0, 0.25, np.nan])
    assert joint.log_prob(np.array([0.0, 1.0, -1.0, 0.0])) == -np.inf
    assert isinstance(joint.support, Joined)


def test_draws_follow_each_part_independently(key):
    x, log_prob = unlike().sample_and_log_prob(key, 4000)
    columns = np.asarray(x, np.float64).T
    kolmogorov_smirnov(np.stack([s.cdf(v) for s, v in zip(parts(), columns, strict=True)], 1))
    close(log_prob, unlike().log_prob(x), 1e3 * EPS)


def test_closed_form_that_a_part_lacks_is_named(key):
    joint = dst.Joint([dst.Normal(), dst.MultivariateNormal(0.0, jnp.eye(2))])
    close(joint.entropy(), 3 * stats.norm.entropy())
    with pytest.raises(AttributeError, match="MultivariateNormal has no cdf in closed form"):
        joint.cdf(np.zeros(3))
    assert not hasattr(dst.Joint([shifted(key, 1), dst.Normal()]), "mean")
    mixed = dst.Joint([dst.Mixture([dst.Normal(), dst.Normal(3.0, 1.0)]), dst.Normal()])
    close(mixed.mean, [1.5, 0.0])
    close(mixed.cdf(np.array([1.5, 0.0])), [0.5, 0.5])
    close(dst.Mixture([mixed, mixed]).variance, [1 + 1.5**2, 1.0])


def test_a_base_that_differs_in_each_dimension_carries_a_flow(key):
    base = dst.Joint([dst.Normal(), dst.StudentT(3.0), dst.Laplace()])
    flow = coupling_flow(key, base_dist=base, flow_layers=2, nn_width=4)
    assert isinstance(flow.support, Real)
    x = flow.sample(key, 5)
    close(flow.log_prob(x), base.log_prob(x), 1e-9 if X64 else 1e-4)
    grads = eqx.filter_grad(lambda flow: flow.log_prob(x).sum())(flow)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads.base_dist))
    with pytest.raises(ValueError, match="positive"):
        dst.Transformed(unlike(), bij.Invert(bij.Exp((4,))))


def test_a_base_learns_the_tails_of_each_dimension():
    """Degrees of freedom that start between them go to 1.5 and upwards, to where maximum likelihood alone has them."""
    rng = np.random.default_rng(0)
    x = np.stack([rng.standard_t(1.5, size=600), rng.normal(size=600)], 1)
    base = dst.StudentT(jnp.full(2, 5.0))
    flow = dst.with_support(dst.Transformed(base, bij.Affine(np.zeros(2), np.ones(2))))
    fitted, _ = fit_to_data(
        jr.key(0), flow, x, max_epochs=60, batch_size=100, learning_rate=0.05, val_prop=0.0, show_progress=False
    )
    df = student_base(fitted).df
    assert abs(np.log(df[0] / stats.t.fit(x[:, 0])[0])) < 0.3
    assert df[1] > 10


def student_base(dist: Any) -> Any:
    return dist if isinstance(dist, dst.StudentT) else student_base(dist.base_dist)


def test_conditional_parts_stand_beside_unconditional_ones(key):
    own = shifted(key, 2)
    joint = dst.Joint([dst.Laplace(), own])
    x, condition = np.ones((3, 3)), np.arange(6.0).reshape(3, 2)
    expected = own.log_prob(x[:, 1:], condition) + stats.laplace.logpdf(1.0)
    close(joint.log_prob(x, condition), expected)
    assert joint.sample(key, 4, condition).shape == (4, 3, 3)


def test_a_zero_beside_a_pole_is_zero():
    joint = dst.Joint([dst.Gamma(0.5, 1.0), dst.Gamma(2.0, 1.0)])
    np.testing.assert_array_equal(joint.log_prob(np.array([[0.0, 0.0], [0.0, 1.0]])), [-np.inf, np.inf])


@pytest.mark.parametrize(
    ("dists", "kind", "message"),
    [
        ([], ValueError, "at least one distribution"),
        ([dst.Normal(), 3.0], TypeError, "distributions.*float"),
        ([dst.StandardNormal((2, 2))], ValueError, r"scalars or vectors.*\(2, 2\)"),
        (
            [shifted(jr.key(0), 1), dst.Transformed(dst.Normal(), bij.AdditiveCondition(jnp.sum, (), (3,)))],
            ValueError,
            "Joint",
        ),
    ],
)
def test_bad_joints_are_a_one_line_error(dists, kind, message, unchecked_annotations):
    with pytest.raises(kind, match=message) as caught:
        dst.Joint(dists)
    assert "\n" not in str(caught.value)
