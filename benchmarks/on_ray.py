"""Rows of a benchmark on the machines of a Ray cluster: one that is lost costs its rows' time, and no row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Job = tuple[str, Callable[..., dict[str, Any]], tuple[Any, ...]]
    """A row's name, and what measures it with which arguments."""

RETRIES = 3
"""How often a row is begun anew elsewhere when its machine is lost."""


def rows_on_ray(address: str, jobs: Sequence[Job]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows as they come. `address` is the cluster's; `local` starts one here.

    All machines see the same files. A row that raises ends the benchmark, as it does without Ray.
    """
    import ray  # noqa: PLC0415 - the optional extra `scale`

    ray.init(**({} if address == "local" else {"address": address}), include_dashboard=False, log_to_driver=False)
    try:
        task = ray.remote(num_cpus=1, max_retries=RETRIES)(_carried_out)
        flying = {task.remote(measure, arguments): name for name, measure, arguments in jobs}
        while flying:
            (done, *_), _ = ray.wait(list(flying), num_returns=1)
            yield flying.pop(done), ray.get(done)
    finally:
        ray.shutdown()


def _carried_out(measure: Callable[..., dict[str, Any]], arguments: tuple[Any, ...]) -> dict[str, Any]:
    return measure(*arguments)
