"""What launchers tell a process that they start, by variables of its environment. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass

from vltok.errors import UserError

#: What torchrun sets for what it starts, of which Lightning reads much by itself.
_OF_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK")
_OF_SRUN = (
    "SLURM_STEP_ID",
    "SLURM_PROCID",
    "SLURM_NTASKS",
    "SLURM_LOCALID",
    "SLURM_NODEID",
    "SLURM_NNODES",
    "SLURM_NTASKS_PER_NODE",
)
_OF_JSRUN = ("JSM_NAMESPACE_RANK", "JSM_NAMESPACE_LOCAL_RANK", "JSM_NAMESPACE_SIZE")
#: Numbers that Lightning reads while it is imported, whether a launcher runs or not.
_ALWAYS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
#: What Lightning sets for the processes that it starts on each machine, and whoever starts them by hand for it.
_OF_LIGHTNING = {"LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT"}
#: All that tells a process of others.
VARIABLES = (*_OF_TORCHRUN, *_OF_SRUN, *_OF_JSRUN, "NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID")
#: With them any launcher says what torchrun says: DeepSpeed's, and that of Kubeflow's PyTorchJob.
_OF_ANY = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
#: SLURM counts the steps that srun starts from 0; numbers from here on are of batch scripts and interactive shells.
_FIRST_SPECIAL_STEP = 0xFFFFFFF0
_PART = re.compile(r"(\d{1,9})/(\d{1,9})")


@dataclass(frozen=True)
class Share:
    """What a process takes of work that is cut into pieces: every so many-th piece, whenever and wherever it starts.

    Attributes:
        rank: Which of the processes it is.
        processes: How many there are, those of all parts together.
        local_rank: Which of its machine's.
        parts: How many independent jobs there are, such as those of a SLURM array.
    """

    rank: int = 0
    processes: int = 1
    local_rank: int = 0
    parts: int = 1

    @classmethod
    def find(cls, environment: Mapping[str, str], part: str | None = None) -> Share:
        """This process's share.

        Args:
            environment: What launchers have set.
            part: Which of the jobs this is, and how many there are, such as ``3/64``; None where it is the only one.

        Raises:
            UserError: The variables contradict each other, or there is no such part.
        """
        rank, processes, local_rank = find_rank(environment)
        if part is None:
            return cls(rank, processes, local_rank)
        number, parts = part_of(part)
        # the pieces of a part are the same however many processes it has
        return cls(number - 1 + parts * rank, parts * processes, local_rank, parts)

    def of(self, pieces: range) -> range:
        """The pieces of this process."""
        return pieces[self.rank :: self.processes]

    @property
    def name(self) -> str:
        """How users know it: `part 3 of 64`, `process 1 of 2` or both; nothing where it has all the work."""
        rank, processes = self.rank // self.parts, self.processes // self.parts
        names = [f"part {self.rank % self.parts + 1} of {self.parts}"] if self.parts > 1 else []
        return ", ".join([*names, f"process {rank} of {processes}"] if processes > 1 else names)


#: The share of a process that has all the work.
ALONE = Share()


def part_of(part: str) -> tuple[int, int]:
    """Which of several independent jobs a part is, from 1, and how many there are.

    Raises:
        UserError: It is no part, such as ``3/64``.
    """
    written = _PART.fullmatch(part)
    number, parts = map(int, written.groups()) if written else (0, 0)
    if parts < 1:
        raise UserError(f"--part is '{part}', but must say which part and of how many, such as 3/64")
    if not 1 <= number <= parts:
        raise UserError(
            f"--part {part}: parts count from 1 to {parts}, as those of 'sbatch --array=1-{parts}' with --part "
            f"$SLURM_ARRAY_TASK_ID/{parts}"
        )
    return number, parts


def array_of(numbers: Sequence[int]) -> str:
    """Ascending numbers as `sbatch --array` takes them, such as ``3,17-20``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ",".join("-".join(map(str, run)) for run in runs)


def forget_leaked(environment: MutableMapping[str, str]) -> list[str]:
    """Unset what launchers set that have not started this process, such as what a shell has kept of another job.

    Lightning would take it for true, and the process for one of many.

    Returns:
        What counts for nothing: the variables of torchrun and mpirun that tell of other processes.
    """
    told: list[str] = []
    if not started_by_torchrun(environment) and ("RANK" in environment or not environment.keys() >= _OF_LIGHTNING):
        others = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
        told = [name for name, alone in others.items() if environment.get(name, alone) != alone]
        _unset(environment, _OF_TORCHRUN)
        if not started_by_srun(environment):
            told += [name for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE") if environment.get(name, "1") != "1"]
    if not started_by_srun(environment) or environment.get("SLURM_STEP_NUM_TASKS") == "1":
        _unset(environment, _OF_SRUN)
    if "LSB_DJOB_RANKFILE" not in environment:
        _unset(environment, _OF_JSRUN)
    return told


def check_numbers(environment: Mapping[str, str]) -> None:
    """See that what a launcher sets to a number is one.

    Raises:
        UserError: A variable is something else.
    """
    for name in _ALWAYS:
        _number(environment, name)


def find_rank(environment: Mapping[str, str]) -> tuple[int, int, int]:
    """This process's rank, the number of processes, and the rank on this machine, as torchrun or srun tells them.

    They count only where the launcher has started this process. A batch script of SLURM has the variables of its job,
    too, but nobody has started as many processes as they say: only what srun starts has a step. And of torchrun only
    what it starts has its run's name, or what any launcher tells: where the first process listens.

    Raises:
        UserError: The variables contradict each other.
    """
    if started_by_torchrun(environment):
        for name in (*_OF_TORCHRUN, "MASTER_PORT"):
            _number(environment, name)
        return _checked(environment, "RANK", "WORLD_SIZE", "LOCAL_RANK")
    if started_by_srun(environment):
        for name in _OF_SRUN:
            _number(environment, name)
        count = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environment else "SLURM_NTASKS"
        return _checked(environment, "SLURM_PROCID", count, "SLURM_LOCALID")
    return 0, 1, 0


def started_by_torchrun(environment: Mapping[str, str]) -> bool:
    """Whether torchrun has started this process, or a launcher that says the same."""
    if "TORCHELASTIC_RUN_ID" in environment and "RANK" in environment:
        return True
    if not environment.keys() >= _OF_ANY or environment["WORLD_SIZE"] == "1":
        return False
    if "SLURM_JOB_ID" not in environment:
        return True
    # a batch script may set the four for all that it starts: for srun, which counts itself, or for nobody
    together = started_by_srun(environment) and environment.get("SLURM_STEP_NUM_TASKS") != "1"
    return "LOCAL_RANK" in environment and not together


def started_by_srun(environment: Mapping[str, str]) -> bool:
    """Whether srun has started this process.

    Raises:
        UserError: The number of the step is none.
    """
    step = _number(environment, "SLURM_STEP_ID")
    return step is not None and step < _FIRST_SPECIAL_STEP


def _unset(environment: MutableMapping[str, str], names: Iterable[str]) -> None:
    for name in names:
        environment.pop(name, None)


def _checked(environment: Mapping[str, str], rank_name: str, count_name: str, local_name: str) -> tuple[int, int, int]:
    rank, count = (_number(environment, name) for name in (rank_name, count_name))
    if rank is None or count is None:
        there, gone = (rank_name, count_name) if count is None else (count_name, rank_name)
        raise UserError(
            f"{there} is {environment[there]!r}, but {gone} is not set: a launcher sets both, or unset both"
        )
    local = _number(environment, local_name) or 0
    if rank >= count:
        raise UserError(f"{rank_name} is {rank}, but {count_name} is {count}: ranks count from 0")
    if local > rank:
        raise UserError(f"{local_name} is {local}, but {rank_name} is {rank}: no machine has more processes than all")
    return rank, count, local


def _number(environment: Mapping[str, str], name: str) -> int | None:
    value = environment.get(name)
    if value is None:
        return None
    if not (value.isascii() and value.isdecimal() and len(value) < 20):
        raise UserError(f"{name} is {value!r}, but launchers set it to a whole number: unset it")
    return int(value)
