"""Distributions made of another one, with its conditions."""

import equinox as eqx
from jaxtyping import ArrayLike

from flowlib._module import check_condition, peel
from flowlib.distributions._distribution import AbstractDistribution, AbstractSampler


class AbstractWrapper(AbstractSampler):
    """What has the conditions of the distribution in its field `dist` and, unless it says otherwise, its shape."""

    # The distribution inside.
    dist: eqx.AbstractVar[AbstractDistribution]

    @property
    def shape(self) -> tuple[int, ...]:
        return peel(self.dist).shape

    @property
    def cond_shape(self) -> tuple[int, ...] | None:
        return peel(self.dist).cond_shape

    def _check_condition(self, condition: ArrayLike) -> None:
        check_condition(self.dist, condition)
