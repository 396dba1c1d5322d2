import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vltok.errors import UserError
from vltok.io.importers.checkpoints import entry, load_config, load_tensors


class Harmful:
    """What a malicious checkpoint would hold: reading it calls something."""

    def __reduce__(self):
        return (pytest.fail, ("code of the checkpoint was executed",))


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"state_dict": state, "epoch": 3}])
def test_torch_checkpoints_give_their_tensors(tmp_path, wrap) -> None:
    state = {"a.weight": torch.randn(2, 3), "b": torch.arange(3)}
    torch.save(wrap(state), tmp_path / "last.ckpt")
    loaded = load_tensors(tmp_path / "last.ckpt")
    assert loaded.keys() == state.keys() and all(torch.equal(loaded[key], state[key]) for key in state)


def test_safetensors_give_their_tensors(tmp_path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    assert torch.equal(load_tensors(tmp_path / "a.safetensors")["a"], torch.ones(2))


@pytest.mark.parametrize("write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_code_in_a_checkpoint_is_refused_not_executed(tmp_path, write) -> None:
    write({"state_dict": {"a": torch.ones(2)}, "callbacks": Harmful()}, tmp_path / "last.ckpt")
    with pytest.raises(UserError, match=r"holds more than tensors, and reading that would execute code[^']*$"):
        load_tensors(tmp_path / "last.ckpt")


def test_a_payload_leaves_no_trace(tmp_path) -> None:
    class Payload:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "last.ckpt").write_bytes(pickle.dumps(Payload(), protocol))
        with pytest.raises(UserError):
            load_tensors(tmp_path / "last.ckpt")
    torch.save(Payload(), tmp_path / "last.ckpt")
    with pytest.raises(UserError):
        load_tensors(tmp_path / "last.ckpt")
    assert not (tmp_path / "ran").exists()


def test_the_name_of_a_checkpoint_stands_in_no_command(tmp_path) -> None:
    path = tmp_path / "x'); import os; os.system('y.ckpt"
    path.write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(UserError) as raised:
        load_tensors(path)
    assert str(raised.value).count("os.system") == 1 and f"checkpoint '{path}'" in str(raised.value)


@pytest.mark.parametrize("name", ["broken.ckpt", "broken.safetensors"])
@pytest.mark.parametrize("cut", [0, 10, 100])
def test_damaged_checkpoints_are_refused(tmp_path, name, cut) -> None:
    path = tmp_path / name
    if name.endswith(".ckpt"):
        torch.save({"a": torch.ones(100)}, path)
    else:
        save_file({"a": torch.ones(100)}, path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UserError, match=f"'{path}'"):
        load_tensors(path)


def test_files_without_tensors_are_refused(tmp_path) -> None:
    with pytest.raises(UserError, match="there is no checkpoint"):
        load_tensors(tmp_path / "none.ckpt")
    for content in ({"epoch": 3}, [1, 2], {"state_dict": {}}, {"state_dict": 3}):
        torch.save(content, tmp_path / "last.ckpt")
        with pytest.raises(UserError, match="holds no tensors"):
            load_tensors(tmp_path / "last.ckpt")


@pytest.mark.parametrize(
    ("text", "message"), [(None, "cannot be read"), ("a: [", "is not YAML"), ("- 1", "must hold keys and values")]
)
def test_configurations_that_cannot_be_read_are_refused(tmp_path, text, message) -> None:
    path = tmp_path / "config.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_config(path)


def test_missing_entries_are_named() -> None:
    assert entry({"a": {"b": 3}}, "a", "b") == 3
    with pytest.raises(UserError, match=r"no 'a\.c'"):
        entry({"a": {"b": 3}}, "a", "c", "d")
    with pytest.raises(UserError, match=r"no 'a\.b\.c'"):
        entry({"a": {"b": 3}}, "a", "b", "c")


def test_a_configuration_is_no_checkpoint(tmp_path):
    (tmp_path / "model.yaml").write_text("model: {}\n")
    with pytest.raises(UserError, match=r"model.yaml' is no checkpoint: it is neither what torch.save writes"):
        load_tensors(tmp_path / "model.yaml")
