"""Perceptual distances: LPIPS against torchmetrics', the timm seam, and the errors where weights are missing."""

import urllib.error
import urllib.request

import pytest
import skimage
import torch
import torchvision
from torchmetrics.functional.image import lpips as torchmetrics_lpips

from vltok.errors import UserError
from vltok.losses.perceptual import LPIPS, NoPerceptual, TimmPerceptual

BACKBONE = "test_resnet.r160_in1k"


@pytest.fixture(scope="module")
def vgg16_features() -> torch.nn.Sequential:
    """The convolutional layers of a VGG16 with random weights."""
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        layers = torchvision.models.vgg16(init_weights=False).features
    layers.to_empty(device="cpu")
    for layer in layers:
        if isinstance(layer, torch.nn.Conv2d):
            fan_in = layer.weight[0].numel()
            layer.weight.data.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
            layer.bias.data.normal_(0, 0.1, generator=generator)
    return layers


@pytest.fixture(scope="module")
def torch_home(vgg16_features, tmp_path_factory) -> str:
    """A folder for TORCH_HOME that holds VGG16's file, with random weights."""
    home = tmp_path_factory.mktemp("torch-home")
    folder = home / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    state = {f"features.{name}": value for name, value in vgg16_features.state_dict().items()}
    torch.save({**state, "classifier.0.bias": torch.zeros(4096)}, folder / "vgg16-397923af.pth")
    return str(home)


@pytest.fixture
def lpips(torch_home, monkeypatch) -> LPIPS:
    monkeypatch.setenv("TORCH_HOME", torch_home)
    perceptual = LPIPS()
    perceptual.load()
    return perceptual


def timm_perceptual(backbone: str, stages: list[int] | None = None) -> TimmPerceptual:
    """With random weights."""
    perceptual = TimmPerceptual(backbone, pretrained=False, stages=stages)
    perceptual.load()
    return perceptual


@pytest.fixture
def no_network(monkeypatch) -> None:
    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no network in this test")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def photographs(count: int = 2, side: int = 64) -> torch.Tensor:
    """Crops of a photograph, in [-1, 1]."""
    picture = torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1) / 127.5 - 1
    return torch.stack([picture[:, 50 * i : 50 * i + side, 180 : 180 + side] for i in range(count)])


def test_lpips_agrees_with_torchmetrics(lpips, vgg16_features, monkeypatch):
    monkeypatch.setattr(torchmetrics_lpips, "_get_tv_model_features", lambda *args: vgg16_features)
    reference = torchmetrics_lpips._LPIPS(net="vgg", pnet_rand=True)
    images = photographs()
    reconstructions = (images + 0.2 * torch.randn_like(images)).clamp(-1, 1)
    torch.testing.assert_close(lpips(reconstructions, images), reference(reconstructions, images).mean())


def test_lpips_is_zero_for_equal_images_and_grows_with_noise(lpips):
    images = photographs()
    noise = torch.randn_like(images)
    distances = [lpips(images + amount * noise, images).item() for amount in (0.0, 0.1, 0.3)]
    assert distances[0] == 0
    assert distances[0] < distances[1] < distances[2]


def test_lpips_is_frozen_and_the_same_in_training(lpips):
    images = photographs()
    reconstructions = (images + 0.1).requires_grad_()
    lpips.train()
    trained = lpips(reconstructions, images)
    torch.testing.assert_close(trained, lpips.eval()(reconstructions, images), rtol=0, atol=0)
    trained.backward()
    assert reconstructions.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in lpips.parameters())
    assert not any(isinstance(module, torch.nn.Dropout) for module in lpips.modules())


def test_lpips_is_measured_in_single_precision_under_autocast(lpips):
    images = photographs()
    reconstructions = images + 0.1
    exact = lpips(reconstructions, images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = lpips(reconstructions, images)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0)


def test_missing_weights_are_named_with_the_way_out(tmp_path, monkeypatch, no_network):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UserError) as error:
        LPIPS().load()  # building it asks for nothing
    message = str(error.value)
    for part in ("vgg16-397923af.pth", str(tmp_path / "hub" / "checkpoints"), "https://", "perceptual: none"):
        assert part in message
    assert "\n" not in message


def test_damaged_weights_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub" / "checkpoints" / "vgg16-397923af.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"not a checkpoint at all")
    with pytest.raises(UserError, match=r"vgg16-397923af\.pth.*damaged.*delete it"):
        LPIPS().load()


@pytest.mark.parametrize("backbone", [BACKBONE, "swin_tiny_patch4_window7_224"])
def test_timm_features_measure_a_distance(backbone):
    perceptual = timm_perceptual(backbone)
    images = photographs(count=1, side=224)
    assert perceptual(images, images).item() == 0
    reconstructions = (images + 0.3 * torch.randn_like(images)).requires_grad_()
    distance = perceptual(reconstructions, images)
    assert 0 < distance.item() <= 4
    distance.backward()
    assert reconstructions.grad.abs().sum() > 0


def test_timm_features_stay_in_evaluation_mode():
    perceptual = timm_perceptual(BACKBONE)
    images = photographs()
    before = {name: value.clone() for name, value in perceptual.state_dict().items()}
    evaluated = perceptual(-images, images)
    perceptual.train()
    torch.testing.assert_close(perceptual(-images, images), evaluated, rtol=0, atol=0)
    for name, value in perceptual.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    assert not any(parameter.requires_grad for parameter in perceptual.parameters())


def test_timm_stages_are_chosen():
    images = photographs()
    single = [timm_perceptual(BACKBONE, [stage]) for stage in (0, 3)]
    both = timm_perceptual(BACKBONE, [0, 3])
    for perceptual in (*single, both):
        generator = torch.Generator().manual_seed(0)
        # the stages that are not asked for do not exist: fill the rest alike, in the order of the names
        for name, parameter in perceptual.network.named_parameters():
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator.manual_seed(len(name))) * 0.1)
    mean = (single[0](-images, images) + single[1](-images, images)) / 2
    torch.testing.assert_close(both(-images, images), mean)


def test_an_unknown_backbone_is_an_error():
    with pytest.raises(UserError, match=r"no backbone 'resnet19'.*list_models"):
        TimmPerceptual("resnet19")


def test_a_stage_that_does_not_exist_is_an_error():
    with pytest.raises(UserError, match=BACKBONE):
        timm_perceptual(BACKBONE, [17])


def test_missing_timm_weights_are_an_error(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise ConnectionError("no network in this test\nand more")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", refuse)
    with pytest.raises(UserError, match=r"weights.*no network in this test\).*perceptual: none") as error:
        TimmPerceptual(BACKBONE).load()
    assert "\n" not in str(error.value)


def test_loading_again_keeps_what_is_there(lpips):
    images = photographs()
    before = lpips(-images, images)
    lpips.load()
    torch.testing.assert_close(lpips(-images, images), before, rtol=0, atol=0)


def test_none_measures_nothing():
    images = photographs()
    assert NoPerceptual()(-images, images).item() == 0
