"""What launchers tell a process: torchrun, srun, and a batch script of SLURM in which nobody has started others."""

import pytest

from vltok.errors import UserError
from vltok.launchers import Share, array_of, check_numbers, find_rank, forget_leaked

TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_PORT": "1"}
#: What `sbatch --ntasks=4` sets for its script.
SBATCH = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
SRUN = {**SBATCH, "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "3"}


def test_alone() -> None:
    assert find_rank({}) == (0, 1, 0)
    assert find_rank({"WORLD_SIZE": "4", "LOCAL_RANK": "0"}) == (0, 1, 0)  # Lightning's own processes


def test_torchrun_and_srun() -> None:
    assert find_rank(TORCHRUN) == (5, 8, 1)
    assert find_rank(SRUN) == (3, 4, 3)
    assert find_rank({**SRUN, **TORCHRUN}) == (5, 8, 1)  # torchrun, started by srun


def test_a_batch_script_does_all_of_the_work() -> None:
    """A quarter of it would look like all."""
    assert find_rank(SBATCH) == (0, 1, 0)
    # the number that salloc gives an interactive shell, and slurmd a script
    for step in (0xFFFFFFFA, 0xFFFFFFFB):
        assert find_rank({**SBATCH, "SLURM_STEP_ID": str(step)}) == (0, 1, 0)


def test_what_a_shell_has_kept_of_torchrun_counts_for_nothing() -> None:
    leaked = {name: value for name, value in TORCHRUN.items() if name != "TORCHELASTIC_RUN_ID"}
    for environment in (leaked, {**leaked, "RANK": "x"}, {**leaked, **SBATCH}, {"LOCAL_RANK": "3"}):
        assert find_rank(environment) == (0, 1, 0)
        environment = {**environment, "HOME": "/home/me"}
        assert forget_leaked(environment)
        assert not environment.keys() & {"RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_NTASKS", "SLURM_PROCID"}
        assert environment["HOME"]
    assert find_rank({**leaked, **SRUN}) == (3, 4, 3)
    assert forget_leaked({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}) == []  # nobody needs to hear of it


def test_what_mpirun_tells_counts_for_nothing_and_is_named() -> None:
    told = {"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "4", "PMI_RANK": "3", "PMI_SIZE": "4"}
    assert find_rank(told)[1] == 1
    assert forget_leaked(told) == ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"]
    assert forget_leaked({**SRUN, "PMI_SIZE": "4"}) == []


#: What the PyTorchJob of Kubeflow sets in a pod; DeepSpeed's launcher sets the rank on the machine, too.
KUBEFLOW = {
    "RANK": "2",
    "WORLD_SIZE": "4",
    "MASTER_ADDR": "job-master-0",
    "MASTER_PORT": "23456",
    "PYTHONUNBUFFERED": "0",
}
DEEPSPEED = {**KUBEFLOW, "LOCAL_RANK": "1", "LOCAL_SIZE": "2", "CROSS_RANK": "1"}


def test_any_launcher_that_says_where_the_first_process_listens() -> None:
    assert find_rank(KUBEFLOW) == (2, 4, 0) and find_rank(DEEPSPEED) == (2, 4, 1)
    assert find_rank({**SBATCH, **DEEPSPEED}) == (2, 4, 1)  # started in a batch script
    with pytest.raises(UserError, match="RANK is 4, but WORLD_SIZE is 4"):
        find_rank({**KUBEFLOW, "RANK": "4"})
    with pytest.raises(UserError, match="MASTER_PORT is 'x'"):
        find_rank({**KUBEFLOW, "MASTER_PORT": "x"})
    for alone in ({**KUBEFLOW, "RANK": "0", "WORLD_SIZE": "1"}, {**SBATCH, **KUBEFLOW}):
        assert find_rank(alone) == (0, 1, 0)


@pytest.mark.parametrize("exported", [KUBEFLOW, {**KUBEFLOW, "RANK": "0", "LOCAL_RANK": "0"}])
def test_what_a_batch_script_exports_to_all_tasks_is_not_their_rank(exported: dict[str, str]) -> None:
    assert find_rank({**exported, **SRUN}) == (3, 4, 3)


@pytest.mark.parametrize(
    "environment",
    [
        TORCHRUN,
        SRUN,
        {**SRUN, **TORCHRUN},
        KUBEFLOW,
        DEEPSPEED,
        {"LOCAL_RANK": "1", "WORLD_SIZE": "2", "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"},
    ],
)
def test_what_a_launcher_or_lightning_has_really_set_stays(environment: dict[str, str]) -> None:
    kept = dict(environment)
    assert forget_leaked(kept) == []
    assert kept == environment


def test_a_shell_of_one_step_is_no_task_of_the_job() -> None:
    environment = {**SRUN, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    forget_leaked(environment)
    assert "SLURM_NTASKS" not in environment and environment["SLURM_JOB_ID"] == "7"


def test_a_step_counts_its_own_tasks() -> None:
    assert find_rank({**SRUN, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}) == (0, 1, 0)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"RANK": "8"}, "RANK is 8, but WORLD_SIZE is 8"),
        ({"WORLD_SIZE": None}, "RANK is '5', but WORLD_SIZE is not set"),
        ({"RANK": ""}, "RANK is ''"),
        ({"RANK": "-1"}, "RANK is '-1'"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two'"),
        ({"LOCAL_RANK": "7"}, "LOCAL_RANK is 7, but RANK is 5"),
        ({"MASTER_PORT": "x"}, "MASTER_PORT is 'x'"),
    ],
)
def test_torchrun_is_contradicted(changed: dict[str, str | None], said: str) -> None:
    environment = {name: value for name, value in {**TORCHRUN, **changed}.items() if value is not None}
    with pytest.raises(UserError, match=said):
        find_rank(environment)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"SLURM_PROCID": None}, "SLURM_STEP_NUM_TASKS is '4', but SLURM_PROCID is not set"),
        ({"SLURM_PROCID": "4"}, "SLURM_PROCID is 4, but SLURM_STEP_NUM_TASKS is 4"),
        ({"SLURM_STEP_ID": "x"}, "SLURM_STEP_ID is 'x'"),
        ({"SLURM_NTASKS": "4(x2)"}, "SLURM_NTASKS is '4"),
    ],
)
def test_srun_is_contradicted(changed: dict[str, str | None], said: str) -> None:
    environment = {name: value for name, value in {**SRUN, **changed}.items() if value is not None}
    with pytest.raises(UserError, match=said):
        find_rank(environment)


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK"])
def test_what_lightning_reads_while_it_is_imported(name: str) -> None:
    with pytest.raises(UserError, match=f"{name} is 'x'"):
        check_numbers({name: "x"})


def test_pieces_are_shared_without_loss_or_repeat_however_many_processes_a_part_has() -> None:
    pieces = []
    for part, processes in (("1/3", 1), ("2/3", 4), ("3/3", 2)):
        for rank in range(processes):
            started = {**TORCHRUN, "RANK": str(rank), "WORLD_SIZE": str(processes), "LOCAL_RANK": "0"}
            pieces += Share.find(started, part).of(range(50))
    assert sorted(pieces) == list(range(50))
    assert Share.find({}).of(range(50)) == range(50) and Share.find({}).name == ""


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("0/64", r"--part 0/64: parts count from 1 to 64, as those of 'sbatch --array=1-64'"),
        ("65/64", r"--part 65/64: parts count from 1 to 64"),
        ("3", r"--part is '3', but must say which part and of how many, such as 3/64"),
        ("1/0", r"--part is '1/0', but must say which part"),
        ("/64", r"--part is '/64', but must say which part"),
    ],
)
def test_there_is_no_such_part(part: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Share.find({}, part)


def test_numbers_as_sbatch_takes_them() -> None:
    assert array_of([1, 2, 4, 7, 8, 9]) == "1-2,4,7-9"
