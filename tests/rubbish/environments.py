"""Rubbish in the variables by which launchers and users speak to a program."""

import random
from pathlib import Path

from .cases import Case
from .sound import PICTURES

_TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none",
    "RANK": "0",
    "WORLD_SIZE": "1",
    "LOCAL_RANK": "0",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29519",
    "GROUP_RANK": "0",
    "LOCAL_WORLD_SIZE": "1",
}
#: What `sbatch --ntasks=4` sets for its script, in which nobody starts four processes.
_SBATCH = {
    "SLURM_JOB_ID": "12345",
    "SLURM_JOBID": "12345",
    "SLURM_JOB_NAME": "train",
    "SLURM_NTASKS": "4",
    "SLURM_NPROCS": "4",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
    "SLURM_JOB_NUM_NODES": "1",
    "SLURM_NNODES": "1",
    "SLURM_NODELIST": "node[1-2]",
    "SLURM_TASKS_PER_NODE": "4",
    "SLURM_SUBMIT_DIR": "/",
}
_SRUN = {
    **_SBATCH,
    "SLURM_STEP_ID": "0",
    "SLURM_STEPID": "0",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_TASKS_PER_NODE": "4",
}
_ALONE = {**_SRUN, "SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "1", "SLURM_TASKS_PER_NODE": "1", "SLURM_NPROCS": "1"}
_VALUES = (
    "",
    " ",
    "-1",
    "0",
    "1",
    "4",
    "5",
    "99",
    "1.5",
    "two",
    "nan",
    "1e3",
    "0x1",
    "9" * 30,
    "٣",
    "None",
    "4,4",
    "4(x2)",
    "a\nb",
)
_OTHERS = (
    {"CUDA_VISIBLE_DEVICES": "99"},
    {"CUDA_VISIBLE_DEVICES": "x"},
    {"HOME": "/nowhere"},
    {"HOME": ""},
    {"TMPDIR": "/nowhere"},
    {"COLUMNS": "x"},
    {"COLUMNS": "0"},
    {"TERM": "dumb"},
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "latin-1"},
    {"OMP_NUM_THREADS": "-1"},
    {"OMP_NUM_THREADS": "x"},
    {"HF_HOME": "/dev/null"},
    {"TORCH_HOME": "/dev/null"},
    {"PL_GLOBAL_SEED": "x"},
    {"PL_GLOBAL_SEED": "-1"},
    {"JSONARGPARSE_DEBUG": "1"},
    {"NODE_RANK": "x"},
    {"NODE_RANK": "3"},
    {"GROUP_RANK": "x"},
    {"JSM_NAMESPACE_RANK": "x"},
    {"OMPI_COMM_WORLD_RANK": "x", "OMPI_COMM_WORLD_SIZE": "y"},
    {"PMI_RANK": "x"},
    {"LSB_JOBID": "3"},
    {"KUBERNETES_PORT": "x"},
    {"TPU_NAME": "x"},
    {"VLTOK_FIT__OUT": "x"},
    {"http_proxy": "x"},
)


def environment(draw: random.Random, folder: Path) -> Case:
    """A sound command under a launcher's variables, of which some are strange or gone."""
    sound = draw.choice([_TORCHRUN, _TORCHRUN, _SBATCH, _SBATCH, _SRUN, _SRUN, _ALONE, None])
    if sound is None:
        variables = dict(draw.choice(_OTHERS))
    else:
        variables = dict(sound)
        for _ in range(draw.choice([0, 1, 1, 1, 2])):
            name = draw.choice(list(variables))
            if draw.random() < 0.35:
                del variables[name]
            else:
                variables[name] = draw.choice(_VALUES)
        if sound is _TORCHRUN and draw.random() < 0.15:
            variables["WORLD_SIZE"] = "2"
        if draw.random() < 0.1:
            variables |= draw.choice([_TORCHRUN, {"RANK": "0"}, {"WORLD_SIZE": "2"}, {"LOCAL_RANK": "x"}])
    tokenizer, out = "--tokenizer=runs/tokenizer/bundle", "--out=out"
    commands = (
        ("tokenize", tokenizer, out, "--shard-size=4", *PICTURES),
        ("tokenize", tokenizer, out, "--shard-size=4", *PICTURES),
        ("sample", "--prior=runs/prior/bundle", "--count=3", "--shard-size=2", out),
        ("evaluate", "--codec=jpeg", "--quality=50", out, *PICTURES),
        ("fit", "--config=tokenizer.yaml", out),
        ("fit", "--config=prior.yaml", out),
        ("reconstruct", "pictures/cat", tokenizer, out),
    )
    shown = {name: value for name, value in variables.items() if sound is None or sound.get(name) != value}
    gone = sorted(set(sound or {}) - set(variables))
    which = {id(_TORCHRUN): "torchrun", id(_SBATCH): "sbatch", id(_SRUN): "srun", id(_ALONE): "srun -n1"}.get(
        id(sound), "no launcher"
    )
    return Case(f"{which}: {shown}{f' without {gone}' if gone else ''}", draw.choice(commands), variables)
