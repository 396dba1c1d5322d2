"""The processes of distributed training, or of one that shares a job."""

from torch import Tensor, distributed


def world() -> tuple[int, int]:
    """This process's rank among those that work together, and how many they are."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def sum_over_processes(value: Tensor) -> Tensor:
    """The sum of a value over all processes, in its place, so that all go on with the same."""
    if world()[1] > 1:
        distributed.all_reduce(value)
    return value
