import hashlib
import json
import os
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file
from torch import nn

from vltok.errors import UserError
from vltok.io.importers.checkpoints import entry, load_config, load_tensors, read_checkpoint


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


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_checkpoint_is_not_executed_and_its_tensors_are_read(tmp_path, legacy) -> None:
    content = {"callbacks": {Harmful: Harmful()}, "state_dict": {"a": torch.ones(2), "b": Harmful()}}
    torch.save(content, tmp_path / "last.ckpt", _use_new_zipfile_serialization=not legacy)
    assert load_tensors(tmp_path / "last.ckpt").keys() == {"a"}


@pytest.mark.parametrize("legacy", [False, True])
def test_a_payload_leaves_no_trace(tmp_path, legacy) -> None:
    class Payload:
        def __init__(self, *reduced):
            self.reduced = reduced

        def __reduce__(self):
            return self.reduced

    harm = tmp_path / "ran"
    payloads = [
        Payload(Path.touch, (harm,)),
        Payload(os.system, (f"touch {harm}",)),
        Payload(exec, (f"open({str(harm)!r}, 'w')",)),
        Payload(getattr, (Payload(__import__, ("os",)), "system")),
        Payload(list, (), None, iter([Payload(os.system, (f"touch {harm}",))])),
        Payload(dict, (), None, None, iter([("a", Payload(os.system, (f"touch {harm}",)))])),
        Payload(torch.load, (str(harm),)),
    ]
    for payload in payloads:
        path = tmp_path / "last.ckpt"
        torch.save({"x": payload, "state_dict": {"a": torch.ones(2)}}, path, _use_new_zipfile_serialization=not legacy)
        assert load_tensors(path)["a"].equal(torch.ones(2))
        torch.save(payload, path, _use_new_zipfile_serialization=not legacy)
        with pytest.raises(UserError):
            load_tensors(path)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "last.ckpt").write_bytes(pickle.dumps(payloads[0], protocol))
        with pytest.raises(UserError):
            load_tensors(tmp_path / "last.ckpt")
    assert not harm.exists()


def test_no_module_that_a_checkpoint_names_is_imported(tmp_path, monkeypatch) -> None:
    module = types.ModuleType("of_somebody")
    module.Callback = type("Callback", (), {"__module__": "of_somebody"})
    monkeypatch.setitem(sys.modules, "of_somebody", module)
    torch.save({"callbacks": [module.Callback()], "state_dict": {"a": torch.ones(2)}}, tmp_path / "last.ckpt")
    monkeypatch.delitem(sys.modules, "of_somebody")
    (tmp_path / "of_somebody.py").write_text("raise AssertionError('it was imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert load_tensors(tmp_path / "last.ckpt").keys() == {"a"}
    assert "of_somebody" not in sys.modules


def test_what_a_pickle_does_to_what_it_is_given_stays_in_it(tmp_path) -> None:
    """BUILD sets attributes of whatever the pickle names."""
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n}(X\x05\x00\x00\x00brokeNub0."
    with zipfile.ZipFile(tmp_path / "a.ckpt", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + rebuild)
        archive.writestr("archive/version", "3")
    with pytest.raises(UserError):
        load_tensors(tmp_path / "a.ckpt")
    assert not hasattr(torch._utils._rebuild_tensor_v2, "broke")


def test_a_checkpoint_as_lightning_1_wrote_them(tmp_path) -> None:
    """Callback classes for keys, objects of the training inside, and tensors that share memory."""

    class ModelCheckpoint:
        pass

    class AttributeDict(dict):
        pass

    for made in (ModelCheckpoint, AttributeDict):  # pickled by name, as if they stood in a module
        made.__qualname__ = made.__name__
        setattr(sys.modules[__name__], made.__name__, made)
    whole = torch.arange(12.0).view(3, 4)
    state = OrderedDict(a=whole, b=whole[1:], c=nn.Parameter(whole.t()), d=torch.ones(2, dtype=torch.bfloat16))
    state._metadata = OrderedDict({"": {"version": 1}})
    content = {
        "epoch": 3,
        "callbacks": {ModelCheckpoint: {"best_model_score": torch.tensor(0.5), "kth_best": {1, 2}}},
        "hyper_parameters": AttributeDict(lr=1e-3, optimizer=torch.optim.Adam, size=torch.Size([3]), at=np.float64(2)),
        "state_dict": state,
    }
    for legacy in (False, True):
        torch.save(content, tmp_path / "last.ckpt", _use_new_zipfile_serialization=not legacy)
        loaded = load_tensors(tmp_path / "last.ckpt")
        assert loaded.keys() == state.keys() and all(loaded[name].equal(value) for name, value in state.items())
        save_file({name: value.contiguous() for name, value in loaded.items()}, tmp_path / "a.safetensors")


def test_tensors_beyond_their_storage_are_damage(tmp_path) -> None:
    torch.save({"a": torch.ones(2), "other": Harmful()}, tmp_path / "a.ckpt")
    with zipfile.ZipFile(tmp_path / "a.ckpt") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "a.ckpt", "w") as archive:
        for name, value in members.items():
            archive.writestr(name, b"" if "/data/" in name else value)
    with pytest.raises(UserError, match="is damaged or no checkpoint"):
        load_tensors(tmp_path / "a.ckpt")


def test_more_than_the_file_holds_is_damage(tmp_path) -> None:
    """A value of a few bytes that is said to fill terabytes, and a member that unpacks to a thousand times its size."""
    torch.save({"a": torch.ones(1).expand(1 << 20, 1 << 20)}, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match=r"bytes cannot hold such tensors as a \[1048576, 1048576\]"):
        load_tensors(tmp_path / "a.ckpt")
    with zipfile.ZipFile(tmp_path / "b.ckpt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}." + bytes(1 << 20))
    with pytest.raises(UserError, match="it is compressed"):
        load_tensors(tmp_path / "b.ckpt")


def test_a_changed_byte_is_damage_where_there_are_checksums(tmp_path) -> None:
    torch.save({"a": torch.full((100,), 3.0)}, tmp_path / "a.ckpt")
    content = bytearray((tmp_path / "a.ckpt").read_bytes())
    content[content.index(torch.full((9,), 3.0).numpy().tobytes())] ^= 1
    (tmp_path / "a.ckpt").write_bytes(content)
    with pytest.raises(UserError, match="is damaged: a part of it is missing or changed"):
        load_tensors(tmp_path / "a.ckpt")
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.ones(2)}, tmp_path / "b.ckpt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert load_tensors(tmp_path / "b.ckpt")["a"].equal(torch.ones(2))


def test_a_torchscript_program_is_not_run(tmp_path) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "a.pt")
    with pytest.raises(UserError, match="is a TorchScript program"):
        load_tensors(tmp_path / "a.pt")


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": {"a.b": torch.ones(2), "model_ema.ab": torch.zeros(2), "model_ema.decay": torch.ones(())}},
        {"model": {"a.b": torch.ones(2)}, "ema": {"a.b": torch.zeros(2)}, "optimizer": {"state": {}}},
        {"model": {"a.b": torch.ones(2)}, "ema": {"decay": torch.tensor(0.9), "shadow": {"a.b": torch.zeros(2)}}},
        {"state_dict": {"a.b": torch.ones(2)}, "ema": {"decay": 0.9, "shadow": {"module.a.b": torch.zeros(2)}}},
        {"module.a.b": torch.zeros(2)},
        {"_orig_mod.a.b": torch.zeros(2)},
        {"module._orig_mod.a.b": torch.zeros(2)},
        {"a._orig_mod.b": torch.zeros(2)},
        {"generator": {"module.a.b": torch.zeros(2)}},
        {"generator": {"a.b": torch.ones(2)}, "generator_ema": {"a.b": torch.zeros(2)}},
        {"model": {"state_dict": {"a.b": torch.zeros(2)}, "step": 3}},
        {"state_dict": {"ema": {"a.b": torch.zeros(2)}, "model": {"a.b": torch.ones(2)}}},
    ],
)
def test_averages_are_preferred_and_names_lose_what_wrappers_add(tmp_path, content) -> None:
    torch.save(content, tmp_path / "a.ckpt")
    found, plain = read_checkpoint(tmp_path / "a.ckpt"), read_checkpoint(tmp_path / "a.ckpt", averages=False)
    assert found.tensors.keys() == plain.tensors.keys() == {"a.b"}
    assert found.tensors["a.b"].equal(torch.zeros(2)) and not plain.averaged
    assert found.averaged == ("ema" in str(content))
    assert plain.tensors["a.b"].equal(torch.ones(2)) == found.averaged


def test_what_is_kept_of_averages_without_them_is_no_model(tmp_path) -> None:
    torch.save({"ema": {"decay": torch.tensor(0.9)}, "model": {"a.b": torch.ones(2)}}, tmp_path / "a.ckpt")
    found = read_checkpoint(tmp_path / "a.ckpt")
    assert found.tensors["a.b"].equal(torch.ones(2)) and not found.averaged


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


def test_the_files_that_an_index_names_are_one_checkpoint(tmp_path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({"b": torch.zeros(3)}, tmp_path / "model-00002-of-00002.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    names = {name: f"model-0000{number}-of-00002.safetensors" for number, name in enumerate("ab", 1)}
    index.write_text(json.dumps({"metadata": {}, "weight_map": names}))
    assert {name: len(value) for name, value in load_tensors(index).items()} == {"a": 2, "b": 3}
    for named, message in [
        ({}, "it has no weight_map"),
        ({"a": "../model.safetensors"}, "which does not lie beside it"),
        ({"a": "none.safetensors"}, "there is no checkpoint '.*none.safetensors'"),
    ]:
        index.write_text(json.dumps({"weight_map": named}))
        with pytest.raises(UserError, match=message):
            load_tensors(index)


def test_a_checkpoint_is_read_once_and_its_hash_is_of_what_was_read(tmp_path, monkeypatch) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pt")
    expected = hashlib.sha256((tmp_path / "a.pt").read_bytes()).hexdigest()
    read, reads = Path.read_bytes, []
    monkeypatch.setattr(Path, "read_bytes", lambda path: reads.append(path) or read(path))
    assert read_checkpoint(tmp_path / "a.pt").sha256 == expected and len(reads) == 1


@pytest.mark.parametrize("name", ["a.pt", "a.bin", "a.safetensors"])
def test_a_name_may_end_in_anything(tmp_path, name) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / name)
    assert load_tensors(tmp_path / name)["a"].equal(torch.ones(2))


def test_a_header_of_any_length_is_no_web_page(tmp_path) -> None:
    content, length = save({"a": torch.ones(2)}), 0x3C20  # written " <"
    header = content[8 : 8 + int.from_bytes(content[:8], "little")]
    whole = length.to_bytes(8, "little") + header.ljust(length) + content[8 + len(header) :]
    (tmp_path / "a.safetensors").write_bytes(whole)
    assert load_tensors(tmp_path / "a.safetensors")["a"].equal(torch.ones(2))


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "a pointer of Git LFS"),
        (b"\n<!doctype html><html><body>Sign in</body></html>", "it is a web page"),
        (b"", "a.(pt|safetensors)' is"),
        (b"PK\x05\x06" + 18 * b"\0", "is a ZIP archive that torch.save did not write"),
        (b"\xff\xff\xff\xff\xff\xff\xff\x7f{}", "is damaged or no checkpoint"),
        (b"\x02\0\0\0\0\0\0\0{]", "is damaged or no checkpoint"),
    ],
)
def test_what_was_downloaded_in_place_of_weights(tmp_path, name, content, message) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_tensors(tmp_path / name)


def test_a_configuration_is_no_checkpoint(tmp_path):
    (tmp_path / "model.yaml").write_text("model: {}\n")
    with pytest.raises(UserError, match=r"model.yaml' is no checkpoint: it is neither what torch.save writes"):
        load_tensors(tmp_path / "model.yaml")
