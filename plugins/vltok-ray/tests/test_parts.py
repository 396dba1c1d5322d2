"""Ray on this machine writes what vltok writes alone, also where processes die."""

import os
import secrets
import signal
import socket
from pathlib import Path

import pytest
import ray
import yaml

import vltok
import vltok_ray
from vltok.errors import UserError
from vltok_ray.__main__ import main

TOKENIZER = {
    "encoder": {"class_path": "patch", "init_args": {"factors": [4, 8], "width": 8, "blocks": 1, "channels": 8}},
    "gate": {"class_path": "random", "init_args": {"ratios": {4: 0.5, 8: 0.5}}},
    "quantizer": {"class_path": "vq", "init_args": {"size": 512, "dimension": 4}},
    "decoder": {"class_path": "pixel-shuffle", "init_args": {"factor": 4, "channels": 8, "width": 8, "blocks": 1}},
}
#: Twelve shards of four pictures, the last of three.
DATA = {"class_path": "photos", "init_args": {"size": 32, "val_crops": 47, "batch_size": 2, "workers": 0}}
OPTIONS = {"split": "val", "shard_size": 4, "device": "cpu"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("ray")


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Path:
    vltok.save_tokenizer(vltok.build({"class_path": "dq-vae", "init_args": TOKENIZER}), folder / "bundle")
    return folder / "bundle"


@pytest.fixture(scope="module")
def alone(bundle: Path, folder: Path) -> Path:
    return vltok.tokenize(bundle, DATA, folder / "alone", **OPTIONS).folder


@pytest.fixture(scope="module")
def deaths(folder: Path):
    """Ray with two cores. While this folder holds files, its processes die at their fifth batch, and take one along."""
    deaths = folder / "deaths"
    deaths.mkdir()

    def prepare() -> None:
        encode, batches = vltok.Tokenizer.encode, []

        def deadly(self, *given):
            if found := list(deaths.iterdir()):
                batches.append(None)
                if len(batches) == 5:
                    found[0].unlink(missing_ok=True)
                    os.kill(os.getpid(), signal.SIGKILL)
            return encode(self, *given)

        vltok.Tokenizer.encode = deadly

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))  # else Ray writes one into the user's home
        patch.delenv("RAY_ADDRESS", raising=False)
        environment = {"worker_process_setup_hook": prepare}
        ray.init("local", num_cpus=2, num_gpus=0, include_dashboard=False, runtime_env=environment)
        yield deaths
        ray.shutdown()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def tokenize(bundle: Path, out: Path, parts: int = 3, **others) -> Path:
    return vltok_ray.tokenize(bundle, DATA, out, parts=parts, **{**OPTIONS, **others})


def test_the_export_is_that_of_one_process(bundle, alone, folder, deaths):
    told = []
    out = tokenize(bundle, folder / "together", progress=lambda *given: told.append(given))
    assert contents(out) == contents(alone) and len(contents(out)) == 14
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_what_is_wrong_for_all_is_said_once(bundle, folder, deaths):
    nowhere = {"class_path": "folder", "init_args": {"root": str(folder / "nowhere"), "size": 32}}
    with pytest.raises(UserError, match=r"nowhere.*does not exist") as error:
        vltok_ray.tokenize(bundle, nowhere, folder / "none", parts=20)
    assert "parts" not in str(error.value) and not (folder / "none").exists()
    with pytest.raises(UserError, match=r"^1 part of 1 failed, such as 1/1: --batch-size must be a whole number"):
        tokenize(bundle, folder / "none", parts=1, batch_size="many")


def test_a_task_that_dies_is_started_again(bundle, alone, folder, deaths):
    (deaths / "one").touch()
    with pytest.raises(UserError, match=r"^1 part of 1 failed, such as 1/1: \w+Error: .*died"):
        tokenize(bundle, folder / "dying", parts=1, retries=0)
    assert 0 < len(list((folder / "dying").glob("codes-*.tar"))) < 12
    with pytest.raises(UserError, match="must be given again"):
        vltok.merge([folder / "dying"])
    (deaths / "another").touch()
    assert contents(tokenize(bundle, folder / "dying", parts=1, retries=1)) == contents(alone)
    assert not any(deaths.iterdir())


def test_a_part_that_failed_is_put_off_until_the_others_have_ended(bundle, alone, folder, deaths):
    (deaths / "one").touch()
    assert contents(tokenize(bundle, folder / "put_off", retries=0)) == contents(alone)
    assert not any(deaths.iterdir())


def test_arguments_are_checked_before_anything_is_started(bundle, folder):
    for wrong, said in [
        ({"parts": 0}, "--parts must be at least 1, not 0"),
        ({"retries": -1}, "--retries must be at least 0, not -1"),
        ({"gpus": -1}, "--gpus must be a number from 0 on, not -1"),
        ({"shard_sizes": 3}, "'shard_sizes'.*did you mean 'shard_size'"),
        ({"part": "1/3"}, "'part'"),
    ]:
        with pytest.raises(UserError, match=said):
            tokenize(bundle, folder / "none", **wrong)
    with pytest.raises(UserError, match="nothing"):
        tokenize(folder / "nothing", folder / "none")


def test_paths_are_the_same_for_all_machines(bundle, alone, folder, deaths, monkeypatch):
    monkeypatch.chdir(folder)
    assert contents(tokenize("bundle", "elsewhere")) == contents(alone)
    monkeypatch.setattr(ray, "nodes", lambda: 2 * [{"Alive": True, "Resources": {"CPU": 2}}])
    with pytest.raises(UserError, match="--out 'codes' is relative, but each machine has its own current folder"):
        tokenize("bundle", "codes")


def test_the_command_takes_the_file_of_vltok_tokenize(bundle, alone, folder, deaths, capsys):
    config = folder / "codes.yaml"
    config.write_text(yaml.safe_dump({**OPTIONS, "data": DATA, "tokenizer": str(bundle)}), encoding="utf-8")
    assert main([str(config), "--parts=2"]) == 1
    assert capsys.readouterr().err == f"vltok_ray: error: {config} does not say 'out'\n"
    assert main([str(config), "--parts=2", "--out", str(folder / "commanded")]) == 0
    assert capsys.readouterr().out.endswith(f"2 of 2 parts\nwritten to {folder / 'commanded'}\n")
    assert contents(folder / "commanded") == contents(alone)
    config.write_text("- tokenizer", encoding="utf-8")
    assert main([str(config), "--parts=2"]) == 1
    assert "holds no options of 'vltok tokenize'" in capsys.readouterr().err


def test_a_part_that_no_machine_can_take_is_told(bundle, folder, deaths, monkeypatch, caplog):
    def stop(*given, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(ray, "wait", stop)
    with pytest.raises(KeyboardInterrupt):
        tokenize(bundle, folder / "none", gpus=1)
    assert "a part takes 1 GPU, and no machine has more than 0" in caplog.text


def test_a_cluster_that_cannot_be_reached_is_one_line(bundle, folder, monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        for address in (f"127.0.0.1:{taken.getsockname()[1]}", "127.0.0.1:port", "somewhere"):
            monkeypatch.setenv("RAY_ADDRESS", address)
            with pytest.raises(UserError, match=f"^the Ray cluster at RAY_ADDRESS '{address}' cannot be reached: .+$"):
                tokenize(bundle, folder / "none")
