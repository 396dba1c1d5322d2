"""The processes of distributed training, or of one that shares a job.

Distributed training averages the gradients of its processes. So a process's loss must be its share of the loss of the
whole batch: the sum of what it has, divided by the mean over processes of what it is the mean of.
"""

import torch
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


def sums_over_processes(*values: Tensor) -> list[Tensor]:
    """The sums of several values of one type over all processes, in a single exchange and without gradient."""
    if world()[1] == 1:
        return [value.detach() for value in values]
    flat = sum_over_processes(torch.cat([value.detach().flatten() for value in values]))
    parts = flat.split([value.numel() for value in values])
    return [part.view_as(value) for part, value in zip(parts, values, strict=True)]


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of a value over all processes, without gradient."""
    return sum_over_processes(value.detach().clone()) / world()[1]


def batch_mean(values: Tensor, together: bool) -> Tensor:
    """The mean over images, on every process that of the whole batch, however the processes share its images.

    Averaged over the processes, the gradient of what follows from it is that of one process with the whole batch.

    Args:
        values: One or more numbers of each image, `[b …]`.
        together: Whether the batches of all processes count, as in training. Otherwise only this one's: in evaluation
            processes may have different numbers of batches, and would wait for each other.
    """
    processes = world()[1]
    if not together or processes == 1:
        return values.mean(dim=0)
    totals = torch.cat([values.detach().sum(dim=0).flatten(), values.new_full((1,), len(values))])
    distributed.all_reduce(totals)
    mean = (totals[:-1] / totals[-1]).view(values.shape[1:])
    share = values.sum(dim=0) * (processes / totals[-1])
    return mean + (share - share.detach())


def rows_of_all(rows: Tensor) -> Tensor:
    """The rows `[n …]` of all processes, in the order of their ranks and without gradient.

    Each process may have another number of them. The host waits for the device once.
    """
    rank, processes = world()
    if processes == 1:
        return rows.detach()
    counts = torch.zeros(processes, dtype=torch.long, device=rows.device)
    counts[rank] = len(rows)
    lengths = sum_over_processes(counts).tolist()
    padded = rows.new_zeros(max(lengths), *rows.shape[1:])
    padded[: len(rows)] = rows.detach()
    found = [torch.empty_like(padded) for _ in lengths]
    distributed.all_gather(found, padded)
    return torch.cat([part[:count] for part, count in zip(found, lengths, strict=True)])
