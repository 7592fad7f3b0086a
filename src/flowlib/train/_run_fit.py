"""Running a fit to data, whatever its data are."""

import math
from contextlib import nullcontext
from functools import partial
from typing import Any

import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray

from flowlib._warn import warn_user
from flowlib.bijections import Invert, rebuild_drift
from flowlib.distributions import AbstractTransformed
from flowlib.errors import CheckpointError
from flowlib.train._diagnose import culprit
from flowlib.train._fingerprint import fingerprint
from flowlib.train._fit_rows import prepare_rows
from flowlib.train._fit_stream import prepare_stream
from flowlib.train._history import EpochHistory, rose
from flowlib.train._loop import Loop
from flowlib.train._losses import AbstractRowLoss
from flowlib.train._mesh import Layout, check_divides
from flowlib.train._options import HostOptions
from flowlib.train._plan import Given
from flowlib.train._processes import ALONE
from flowlib.train._progress import warn_of_failure, warn_of_interrupt
from flowlib.train._sources import is_file, is_stream
from flowlib.train._state import FAILURES, Descent, Status, combined

_DRIFT_ROWS = 1000
_START_ROWS = 1000
# From so many epochs on, the default, a fit that stops while still falling is warned of.
_MANY_EPOCHS = 100


def run_fit(
    key: PRNGKeyArray,
    given: Given,
    descent: Descent,
    host: HostOptions,
    settings: dict[str, Any],
    layout: Layout | None,
    max_epochs: int,
    return_best: bool,
    show_progress: bool,
) -> tuple[Any, EpochHistory]:
    """Prepare, resume, run, warn, and put together what is returned."""
    streams = is_stream(given.data)
    if not streams or is_file(given.data):
        check_divides(layout, given.batch_size)
    processes = ALONE if layout is None else layout.processes
    # A mesh that the caller has set would be asked for in every operation, where its axes are explicit.
    with nullcontext() if layout is None else jax.set_mesh(None):
        plan = (prepare_stream if streams else prepare_rows)(key, given, descent, layout)
        if processes.count > 1:
            common = {name: settings[name] for name in ("key", "distribution", "batch_size")} | plan.settings
            processes.check_same({name: fingerprint(value) for name, value in common.items()})
        state, static, checkpoints, resumed = plan.state, plan.static, None, False
        history = EpochHistory(validated=plan.validated)
        if host.checkpoint is not None:
            begin = partial(host.plan, settings | plan.settings, eqx.filter(static, eqx.is_array), processes)
            checkpoints = processes.in_step("Beginning checkpoints", begin, error=CheckpointError)
            assert checkpoints is not None
            state, constant, resumed = processes.in_step(
                "Reading the checkpoint", partial(checkpoints.load, state, history), lambda _: (history.done,),
                "must find the same one in every process, in one directory that all share", CheckpointError,
            )  # fmt: skip
            static = eqx.combine(constant, static)

        def note(state):
            return {"patience": f"{int(state.fruitless)}/{settings['max_patience']}"}

        loop = Loop(
            "epoch", max_epochs, plan.longest, history, plan.dispatch(static), partial(combined, static),
            host.callbacks, host.max_seconds, show_progress and processes.index == 0, checkpoints, resumed, note=note,
            processes=processes, breakable=streams,
        )  # fmt: skip
        state = loop.run(state)
        if layout is not None:
            state = layout.own(state)

        fitted = combined(static, state.best_params if return_best else state.judged)
        if history.report.stopped == "error":
            loop.raise_failure(fitted)
        _warn_of_end(state, static, plan, given.loss_fn, history, return_best)
        if rose(history.first_loss, history.report.best_loss) and math.isfinite(history.report.best_loss):
            fitted = _start_if_better(key, state, static, plan, given, return_best)
        if isinstance(given.loss_fn, AbstractRowLoss):
            _warn_of_drift(fitted, *plan.sample)
        loop.raise_failure(fitted)
        return fitted, history


def _warn_of_end(state, static, plan, loss_fn, losses, return_best):
    if losses.report.stopped == "interrupted":
        warn_of_interrupt(f"{losses.done} epochs")
    status = Status(int(state.status))
    if status not in FAILURES:
        _warn_if_unfinished(losses, return_best)
        return
    epoch = len(losses["train"]) - 1
    tried = int(state.step) + int(state.skipped)
    best = float(state.best_loss)
    guilty = culprit(loss_fn, state.params, static, plan.sample)
    if not return_best:
        kept = "the last finite parameters are returned"
    elif best == math.inf:
        kept = "the parameters are returned as they were given"
    else:
        kept = f"the best parameters so far, of loss {best:.6g}, are returned"
    if status == Status.BAD_VALIDATION:
        value = losses["val" if losses["val"] else "train"][-1]
        where = f"after epoch {epoch} (counted from zero) and {int(state.step)} steps"
        warn_of_failure(status, where, value, kept, guilty)
    else:
        steps = plan.steps_per_epoch
        step = f"step {tried}" if steps is None else f"step {tried - epoch * steps}"
        where = f"at {step} of epoch {epoch} (counted from zero)"
        warn_of_failure(status, where, losses["train"][-1], kept, guilty)


def _warn_if_unfinished(losses, return_best):
    report = losses.report
    last = report.best_epoch is not None and report.epochs - report.best_epoch <= 2
    # Fewer epochs than this were asked for to have a look, or by one who goes on.
    if report.stopped == "max_epochs" and report.falling and last and report.epochs >= _MANY_EPOCHS:
        warn_user(
            f"The fit stopped at max_epochs={report.epochs} while its loss was still falling. Give more max_epochs; "
            "with checkpoint= a fit goes on from where it was."
        )


def _start_if_better(key, state, static, plan, given, return_best):
    """The result of a fit whose loss is nowhere as low as it was at first: of the same rows, which is better."""
    fitted = combined(static, state.best_params if return_best else state.judged)
    rows = _START_ROWS if isinstance(given.loss_fn, AbstractRowLoss) else given.batch_size
    sample = [array[:rows] for array in plan.sample]
    before, after = (
        float(_loss_of(given.loss_fn, params, static, sample, key)) for params in (plan.start, state.best_params)
    )
    if not before < after - max(0.1, abs(before) / 10):
        return fitted
    kept = "the parameters are returned as they were given" if return_best else "the last parameters are returned"
    warn_user(
        f"The fit made the loss worse: {before:.6g} before, {after:.6g} at best after; {kept}. The learning rate is "
        "probably too large: try a tenth of it."
    )
    return combined(static, plan.start) if return_best else fitted


@eqx.filter_jit
def _loss_of(loss_fn, params, static, sample, key):
    return loss_fn(params, static, *sample, key=key)


def _warn_of_drift(dist, x, condition=None):
    # Says nothing unless layers of the flow rebuild their inputs for the gradient, and do it badly.
    if isinstance(dist, AbstractTransformed):
        condition = None if condition is None else condition[:_DRIFT_ROWS]
        rebuild_drift(Invert(dist.bijection), x[:_DRIFT_ROWS], condition)
