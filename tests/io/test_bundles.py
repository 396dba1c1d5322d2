"""Bundles: what is written is what is read, and a damaged one says so."""

import copy
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
import yaml

import vltok
from vltok.codes import Codes, CodeSpec
from vltok.drawing.batches import Drawing
from vltok.drawing.conditioning import Conditioning
from vltok.drawing.config import SamplingOptions
from vltok.errors import UserError
from vltok.files import sha256_of
from vltok.interfaces import Prior, PriorLoss, Standalone, Tokenizer
from vltok.io.bundles import fingerprint, load_prior, load_tokenizer, prior_fingerprint, save_prior, save_tokenizer
from vltok.io.places import find_tokenizer
from vltok.io.recipes import instantiate, parse_tree, recipe_parser
from vltok.priors.raster_scan import RasterScan
from vltok.rates import RateCalibration
from vltok.tokenizers.decoders import PixelShuffleDecoder, PositionalDecoder
from vltok.tokenizers.dqvae import DQVAE
from vltok.tokenizers.encoders import PatchEncoder
from vltok.tokenizers.gates import RandomGate
from vltok.tokenizers.quantizers import EMAVectorQuantizer

from ..distributions import installed
from ..tiny_priors import tiny_prior

CONFIG = {
    "class_path": "dq-vae",
    "init_args": {
        "encoder": {"class_path": "patch", "init_args": {"factors": [4, 8], "width": 8, "blocks": 1, "channels": 8}},
        "gate": {"class_path": "feature", "init_args": {"channels": 8, "granularities": 2, "norm_groups": 4}},
        "quantizer": {"class_path": "ema-vq", "init_args": {"size": 16, "dimension": 4}},
        "decoder": {"class_path": "pixel-shuffle", "init_args": {"factor": 4, "channels": 8, "width": 8, "blocks": 1}},
        "budget": {"class_path": "ratio", "init_args": {"ratios": {4: 0.5, 8: 0.5}}},
    },
}


def _build(config: dict) -> Tokenizer:
    parser = recipe_parser("test")
    parser.add_subclass_arguments(Tokenizer, "tokenizer", required=True)
    return instantiate(parser, parse_tree(parser, {"tokenizer": config})).tokenizer


def _within(given: Any, whole: Any) -> bool:
    if isinstance(given, dict):
        return all(_within(value, whole[key]) for key, value in given.items())
    return given == whole


@pytest.fixture
def tokenizer() -> Tokenizer:
    return _build(CONFIG)


@pytest.fixture
def bundle(tokenizer: Tokenizer, tmp_path: Path) -> Path:
    save_tokenizer(tokenizer, tmp_path / "mine", card="Trained on *pictures*.", metrics={"psnr": 21.34567})
    return tmp_path / "mine"


@pytest.fixture
def change(bundle: Path) -> Callable[[str, Any], None]:
    """Change a key of the bundle's configuration."""

    def change(key: str, value: Any) -> None:
        content = yaml.safe_load((bundle / "config.yaml").read_text())
        content[key] = value
        (bundle / "config.yaml").write_text(yaml.safe_dump(content))

    return change


def test_a_bundle_gives_the_same_tokenizer(tokenizer: Tokenizer, bundle: Path) -> None:
    loaded = vltok.load_tokenizer(bundle)
    assert not loaded.training
    for name, value in tokenizer.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    images = torch.rand(2, 3, 16, 24) * 2 - 1
    assert torch.equal(loaded.encode(images).ids, tokenizer.encode(images).ids)
    assert torch.equal(loaded.decode(loaded.encode(images)), tokenizer.decode(tokenizer.encode(images)))


def test_a_bundle_holds_three_files_and_no_pickle(bundle: Path) -> None:
    assert {path.name for path in bundle.iterdir()} == {"config.yaml", "model.safetensors", "README.md"}
    content = yaml.safe_load((bundle / "config.yaml").read_text())
    assert (content["format"], content["kind"]) == (1, "tokenizer")
    assert _within(CONFIG, content["tokenizer"])  # which says every default too
    assert content["requires"] == [{"distribution": "vltok", "version": vltok.__version__}]
    weights = (bundle / "model.safetensors").read_bytes()
    assert content["weights"] == {"sha256": hashlib.sha256(weights).hexdigest(), "size": len(weights)}


def test_the_card_has_front_matter_and_figures(bundle: Path) -> None:
    card = (bundle / "README.md").read_text()
    _, front, text = card.split("---\n", 2)
    assert yaml.safe_load(front)["library_name"] == "vltok"
    assert "Trained on *pictures*." in text and "| PSNR ↑ | 21.35 dB |" in text
    assert "# mine" in text


def test_dotted_paths_are_written_as_names(tokenizer: Tokenizer, tmp_path: Path) -> None:
    assert tokenizer.config["class_path"] == "vltok.tokenizers.dqvae.DQVAE"
    save_tokenizer(tokenizer, tmp_path / "a")
    assert yaml.safe_load((tmp_path / "a" / "config.yaml").read_text())["tokenizer"]["class_path"] == "dq-vae"


def test_loading_does_not_touch_the_random_state(bundle: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    load_tokenizer(bundle)
    assert torch.equal(torch.rand(4), expected)


def test_channels_last_weights_are_written(tokenizer: Tokenizer, tmp_path: Path) -> None:
    save_tokenizer(tokenizer.to(memory_format=torch.channels_last), tmp_path / "a")
    weight = load_tokenizer(tmp_path / "a").project_in.weight
    assert torch.equal(weight, tokenizer.project_in.weight)


def test_pretrained_weights_are_not_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = {"backbone": "resnet10t", "factors": [4, 8], "channels": 8, "pretrained": True}
    config = {**CONFIG, "init_args": {**CONFIG["init_args"], "encoder": {"class_path": "timm", "init_args": backbone}}}
    create = timm.create_model
    with monkeypatch.context() as downloading:
        downloading.setattr(timm, "create_model", lambda name, pretrained=False, **rest: create(name, **rest))
        tokenizer = _build(config)
    save_tokenizer(tokenizer, tmp_path / "a")  # as loading, would fail without a network
    load_tokenizer(tmp_path / "a")
    written = yaml.safe_load((tmp_path / "a" / "config.yaml").read_text())["tokenizer"]["init_args"]["encoder"]
    assert written["init_args"]["pretrained"] is False


class PointingPrior(Prior, Standalone):
    """A prior whose recipe points at a file that only training has."""

    def __init__(self, width: int = 1, file: str | None = None) -> None:
        super().__init__()
        self.conditioning = Conditioning()
        self.weight = torch.nn.Parameter(torch.zeros(len(Path(file).read_text()) if file else width))

    @property
    def spec(self) -> CodeSpec:
        return CodeSpec(2, max_length=1)

    @property
    def standalone_arguments(self) -> dict[str, Any]:
        return {"width": len(self.weight), "file": None}

    def loss(self, codes: Codes) -> PriorLoss:
        raise AssertionError("nobody trains it")

    def drawing(self, sampling: SamplingOptions) -> Drawing:
        raise AssertionError("nobody asks it")


def test_what_a_recipe_points_at_is_not_needed_again(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("12345")
    init_args = {"file": str(tmp_path / "file")}
    prior = PointingPrior(**init_args)
    config = {"class_path": f"{__name__}.PointingPrior", "init_args": init_args}
    save_prior(prior, tmp_path / "mine", tokenizer="0" * 64)
    (tmp_path / "file").unlink()
    written = yaml.safe_load((tmp_path / "mine" / "config.yaml").read_text())["prior"]
    assert written == {**config, "init_args": {"file": None, "width": 5}}
    assert init_args["file"], "the caller's recipe stays as it is"
    rebuilt = PointingPrior(**written["init_args"])
    rebuilt.load_state_dict(safetensors.torch.load_file(tmp_path / "mine" / "model.safetensors"))


def test_a_bundle_replaces_a_bundle_and_nothing_else(tokenizer: Tokenizer, bundle: Path, tmp_path: Path) -> None:
    save_tokenizer(tokenizer, bundle, card="again")
    assert "again" in (bundle / "README.md").read_text()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("precious")
    with pytest.raises(UserError, match="no bundle; it is left as it is"):
        save_tokenizer(tokenizer, tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "precious"
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "thesis"}


def test_a_calibration_stays_with_what_is_saved_again(tokenizer: Tokenizer, bundle: Path, tmp_path: Path) -> None:
    before = fingerprint(bundle)
    tokenizer.calibration = RateCalibration((1.0, 0.5, -2.0), (0.25, 0.5, 1.0), 12, "photos")
    save_tokenizer(tokenizer, bundle)
    save_tokenizer(load_tokenizer(bundle), tmp_path / "again")
    assert load_tokenizer(tmp_path / "again").calibration == tokenizer.calibration
    assert fingerprint(tmp_path / "again") == before


def test_tables_and_curve_stay_where_the_same_tokenizer_is_saved_again(tokenizer: Tokenizer, bundle: Path) -> None:
    """Without the tables, what was compressed could not be read."""
    (bundle / "code_tables.safetensors").write_bytes(b"tables")
    (bundle / "rate_curve.json").write_bytes(b"curve")
    save_tokenizer(tokenizer, bundle, card="again")
    assert (bundle / "code_tables.safetensors").read_bytes() == b"tables"
    assert (bundle / "rate_curve.json").read_bytes() == b"curve"
    torch.nn.init.zeros_(tokenizer.project_in.weight)
    save_tokenizer(tokenizer, bundle)
    assert not (bundle / "code_tables.safetensors").exists() and not (bundle / "rate_curve.json").exists()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "it is no calibration"),
        (b"[]", "it is no calibration"),
        (b"[" * 100_000, "recursion"),
        (b'{"version": 1, "tokenizer": "a1"}', "it was measured with another tokenizer"),
        (b'{"version": 2}', "it has version 2, this vltok reads 1"),
        (b"\xff", "it is no calibration|codec"),
    ],
)
def test_a_damaged_calibration_is_one_line(bundle: Path, text: bytes, problem: str) -> None:
    (bundle / "rate.json").write_bytes(text)
    with pytest.raises(
        UserError, match=rf"rate\.json' cannot be used \(.*({problem}).*\): remove it, and measure"
    ) as raised:
        load_tokenizer(bundle)
    assert "\n" not in str(raised.value)


def test_weights_that_diverged_are_not_written(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with torch.no_grad():
        tokenizer.project_in.weight[0] = torch.nan
    with pytest.raises(UserError, match=r"project_in\.weight holds numbers that are not finite"):
        save_tokenizer(tokenizer, tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_a_loaded_tokenizer_knows_what_it_is_built_of(tokenizer: Tokenizer, bundle: Path, tmp_path: Path) -> None:
    loaded = load_tokenizer(bundle)
    assert loaded.config == tokenizer.config == vltok.build(loaded.config).config
    save_tokenizer(loaded, tmp_path / "copy")
    assert fingerprint(tmp_path / "copy") == fingerprint(bundle)


def _made(**others: Any) -> Tokenizer:
    """A tokenizer built in Python, by constructors."""
    parts = {
        "encoder": PatchEncoder([4, 8], width=8, blocks=1, channels=8),
        "gate": RandomGate({4: 0.5, 8: 0.5}),
        "quantizer": EMAVectorQuantizer(16, dimension=4),
        "decoder": PixelShuffleDecoder(4, 8, 8, blocks=1),
    }
    return DQVAE(**{**parts, **others})


def test_a_tokenizer_built_in_python_is_saved_without_a_configuration(tmp_path: Path) -> None:
    tokenizer = copy.deepcopy(_made(decoder=PositionalDecoder(PixelShuffleDecoder(4, 8, 8, blocks=1), grid=4)))
    vltok.save_tokenizer(tokenizer, tmp_path / "a")
    loaded = vltok.load_tokenizer(tmp_path / "a")
    assert loaded.config == tokenizer.config
    images = torch.rand(1, 3, 16, 16) * 2 - 1
    assert torch.equal(loaded.decode(loaded.encode(images)), tokenizer.decode(tokenizer.encode(images)))


def test_a_part_that_was_replaced_counts_by_its_own_arguments(tmp_path: Path) -> None:
    tokenizer = _made()
    tokenizer.decoder = PixelShuffleDecoder(4, 8, 24, blocks=2)
    save_tokenizer(tokenizer, tmp_path / "a")
    assert load_tokenizer(tmp_path / "a").config["init_args"]["decoder"]["init_args"]["width"] == 24


class NotedDecoder(PixelShuffleDecoder):
    """Has an argument that may be anything, and none of the others."""

    def __init__(self, note: Any) -> None:
        super().__init__(4, 8, 8, 1)


def _changed() -> Tokenizer:
    tokenizer = _made()
    tokenizer.project_in = torch.nn.Conv2d(8, 4, 3)
    return tokenizer


def _of_a_function() -> Tokenizer:
    class Local(PixelShuffleDecoder):
        pass

    return _made(decoder=Local(4, 8, 8, 1))


def _of_a_notebook() -> Tokenizer:
    written = type("Written", (PixelShuffleDecoder,), {"__module__": "__main__"})
    sys.modules["__main__"].Written = written
    return _made(decoder=written(4, 8, 8, 1))


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (_changed, r"do not fit what it was built from \(size mismatch for project_in.weight.*it was changed since"),
        (_of_a_function, r"tokenizer\.decoder is .*Local, which is written in a script, a notebook or a function"),
        (
            _of_a_notebook,
            r"tokenizer\.decoder is __main__\.Written, which is written in a script, a notebook",
        ),
        (lambda: _made(decoder=NotedDecoder(torch.zeros(2))), r"tokenizer\.decoder\.note is a Tensor, which no conf"),
        (lambda: _made(decoder=NotedDecoder(torch.nn.ReLU())), r"tokenizer\.decoder\.note is a ReLU, which no conf"),
        (lambda: _made(decoder=NotedDecoder(lambda: 0)), r"tokenizer\.decoder\.note is a function, which no conf"),
    ],
)
def test_a_bundle_that_nobody_could_load_is_not_written(
    made: Callable[[], Tokenizer], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        save_tokenizer(copy.deepcopy(made()), tmp_path / "wrong")
    assert not list(tmp_path.iterdir())


def test_a_prior_for_images_of_one_grid_is_saved_as_that_of_any(tmp_path: Path) -> None:
    prior = tiny_prior(RasterScan, regions=None)
    with pytest.raises(UserError, match=r"of \(2, 3\) regions alone, as its on_grid made it: save the one of any grid"):
        save_prior(prior.on_grid((2, 3)), tmp_path / "bundle", tokenizer="0" * 64)
    assert not list(tmp_path.iterdir())
    save_prior(prior, tmp_path / "bundle", tokenizer="0" * 64)
    assert load_prior(tmp_path / "bundle").asks_for_grid


def test_the_fingerprint_is_of_weights_and_configuration(tokenizer: Tokenizer, bundle: Path, tmp_path: Path) -> None:
    save_tokenizer(tokenizer, tmp_path / "copy", card="other words")
    assert fingerprint(tmp_path / "copy") == fingerprint(bundle)
    with torch.no_grad():
        tokenizer.project_in.weight[0] += 1
    save_tokenizer(tokenizer, tmp_path / "other")
    assert fingerprint(tmp_path / "other") != fingerprint(bundle)


def test_a_flipped_bit_is_noticed(bundle: Path) -> None:
    content = bytearray((bundle / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (bundle / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="is damaged: its hash"):
        load_tokenizer(bundle)


def test_a_truncated_file_is_noticed(bundle: Path) -> None:
    content = (bundle / "model.safetensors").read_bytes()
    (bundle / "model.safetensors").write_bytes(content[:-100])
    with pytest.raises(UserError, match=f"is damaged: it has {len(content) - 100} bytes"):
        load_tokenizer(bundle)


@pytest.mark.parametrize("name", ["config.yaml", "model.safetensors"])
def test_a_missing_file_is_named(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(UserError, match=f"has no {name}"):
        load_tokenizer(bundle)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format", 7, "has format 7, but vltok .* reads format 1"),
        ("format", 1.0, "has format 1.0, but vltok .* reads format 1"),
        ("kind", "prior", "holds a prior, not a tokenizer"),
        (
            "requires",
            [{"distribution": "elsewhere-tokens", "version": "1.2"}],
            "claims to need a distribution called 'elsewhere-tokens', version 1.2, which is not installed",
        ),
        ("tokenizer", {"class_path": "nothing"}, "no tokenizer is called 'nothing'"),
    ],
)
def test_what_does_not_fit_is_said(bundle: Path, change, key: str, value: Any, message: str) -> None:
    change(key, value)
    with pytest.raises(UserError, match=message) as raised:
        load_tokenizer(bundle)
    assert "\n" not in str(raised.value)


def test_weights_of_another_shape_are_refused(bundle: Path, change) -> None:
    tree = yaml.safe_load((bundle / "config.yaml").read_text())["tokenizer"]
    tree["init_args"]["quantizer"]["init_args"]["size"] = 32
    change("tokenizer", tree)
    with pytest.raises(
        UserError, match=r"^[^\n]*do not fit what config\.yaml describes \(size mismatch for .{,200}\): undo "
    ):
        load_tokenizer(bundle)


#: Written by version 0.1.0.
OLD = Path(__file__).parent / "bundles_0_1_0"


def test_bundles_of_version_0_1_0_load_unchanged() -> None:
    assert load_tokenizer(OLD / "tokenizer").spec.codebook_size == 8
    assert load_prior(OLD / "prior").spec.codebook_size == 8
    assert fingerprint(OLD / "tokenizer") == "6844f383b3e839bc310d0fbb222ef9415951692756dfddb75ec89d0a300f717e"
    assert prior_fingerprint(OLD / "prior") == "cc89e2cc2c1d2a4ff68ebe8abc6575f630161f22f4a1d7a9e42607d123786ad8"
    assert Path(find_tokenizer(OLD / "prior")).samefile(OLD / "tokenizer")


@pytest.mark.parametrize("text", ["", "- a", "a: [", "just: this"])
def test_a_configuration_that_is_none(bundle: Path, text: str) -> None:
    (bundle / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=r"config\.yaml'"):
        load_tokenizer(bundle)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no bundle '.*nowhere': no such folder"):
        load_tokenizer(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="it is a file"):
        load_tokenizer(tmp_path / "file")


def test_a_run_folder_hints_at_its_bundle(bundle: Path, tmp_path: Path) -> None:
    bundle.rename(tmp_path / "bundle")
    with pytest.raises(UserError, match=f"did you mean '{tmp_path / 'bundle'}'?"):
        load_tokenizer(tmp_path)


PLUGIN = """
from vltok.priors.raster_scan import RasterScan
from vltok.tokenizers.dqvae import DQVAE
from vltok.tokenizers.quantizers import VectorQuantizer
class Quantizer(VectorQuantizer): pass
class Tokens(DQVAE): pass
class Codes(RasterScan): pass
"""
POINTS = {
    "quantizer": {"their-vq": "outsider_module:Quantizer"},
    "tokenizer": {"their-vae": "outsider_module:Tokens"},
    "prior": {"their-prior": "outsider_module:Codes"},
}
_QUANTIZED = {"class_path": "their-vq", "init_args": {"size": 16, "dimension": 4}}


@pytest.mark.parametrize(
    "config",
    [
        {**CONFIG, "class_path": "their-vae"},
        {**CONFIG, "init_args": {**CONFIG["init_args"], "quantizer": _QUANTIZED}},
        {
            **CONFIG,
            "init_args": {
                **CONFIG["init_args"],
                "quantizer": {**_QUANTIZED, "class_path": "outsider_module.Quantizer"},
            },
        },
    ],
)
def test_a_plugins_tokenizer_or_part_is_asked_for_where_it_is_missing(config: dict, tmp_path: Path) -> None:
    with installed(tmp_path, "outsider", POINTS, PLUGIN):
        save_tokenizer(_build(config), tmp_path / "bundle")
        requires = yaml.safe_load((tmp_path / "bundle" / "config.yaml").read_text())["requires"]
        assert {"distribution": "outsider", "version": "1.5"} in requires
        assert load_tokenizer(tmp_path / "bundle").spec.codebook_size == 16
    with pytest.raises(UserError, match=r"claims to need .* 'outsider', version 1\.5, which is not installed"):
        load_tokenizer(tmp_path / "bundle")


def test_a_plugins_prior_is_asked_for_where_it_is_missing(tmp_path: Path) -> None:
    spec = {"codebook_size": 4, "factors": [8], "regions": [2, 2]}
    small = {"width": 8, "heads": 2, "layers": 1}
    arguments = {"spec": spec, "position_transformer": small, "content_transformer": small}
    with installed(tmp_path, "outsider", POINTS, PLUGIN):
        prior = vltok.build({"class_path": "their-prior", "init_args": arguments})
        save_prior(prior, tmp_path / "bundle", tokenizer="0" * 64)
        assert vltok.load_prior(tmp_path / "bundle").spec == prior.spec
    with pytest.raises(UserError, match=r"claims to need .* 'outsider', version 1\.5, which is not installed"):
        vltok.load_prior(tmp_path / "bundle")


def test_a_name_that_a_plugin_takes_later_means_what_it_meant(bundle: Path, tmp_path: Path) -> None:
    with installed(tmp_path, "outsider", {"quantizer": {"ema-vq": "outsider_module:Quantizer"}}, PLUGIN):
        assert type(load_tokenizer(bundle).quantizer).__name__ == "EMAVectorQuantizer"


def test_weights_that_are_not_finite_are_no_model(bundle: Path, change: Callable[[str, Any], None]) -> None:
    weights = bundle / "model.safetensors"
    tensors = safetensors.torch.load_file(weights)
    tensors["project_in.weight"].fill_(float("nan"))
    safetensors.torch.save_file(tensors, weights)
    change("weights", {"sha256": sha256_of(weights), "size": weights.stat().st_size})
    with pytest.raises(UserError, match=r"is damaged: project_in\.weight holds numbers that are not finite"):
        load_tokenizer(bundle)
