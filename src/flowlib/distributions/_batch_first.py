"""Distributions written for a batch at once; one event is a batch of one."""

from abc import abstractmethod

from jaxtyping import Array, PRNGKeyArray

from flowlib.distributions._distribution import AbstractDistribution, AbstractSampler


class AbstractBatchSampler(AbstractSampler):
    """What draws a batch at once: subclasses write `_sample_batch`."""

    @abstractmethod
    def _sample_batch(self, key: PRNGKeyArray, size: int, condition: Array | None) -> Array:
        """`size` draws; `condition` is None, one for all, or one for each."""

    def _sample(self, key: PRNGKeyArray, condition: Array | None) -> Array:
        return self._sample_batch(key, 1, condition)[0]


class AbstractBatchDistribution(AbstractBatchSampler, AbstractDistribution):
    """What evaluates a batch at once too: subclasses write `_log_prob_batch`.

    They write `_sample_and_log_prob_batch` where both together are cheaper.
    """

    @abstractmethod
    def _log_prob_batch(self, x: Array, condition: Array | None) -> Array:
        """The log densities at a batch of events inside the support; `condition` as for draws."""

    def _log_prob(self, x: Array, condition: Array | None) -> Array:
        return self._log_prob_batch(x[None], condition)[0]

    def _sample_and_log_prob(self, key: PRNGKeyArray, condition: Array | None) -> tuple[Array, Array]:
        x, log_prob = self._sample_and_log_prob_batch(key, 1, condition)
        return x[0], log_prob[0]

    def _sample_and_log_prob_batch(self, key: PRNGKeyArray, size: int, condition: Array | None) -> tuple[Array, Array]:
        x = self._sample_batch(key, size, condition)
        return x, self._log_prob_batch(x, condition)
