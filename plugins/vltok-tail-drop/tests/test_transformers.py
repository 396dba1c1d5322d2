import torch

from vltok_tail_drop.transformers import WaveDecoder, WaveEncoder


def test_waves_start_as_cosines_from_slow_to_fast():
    waves = WaveEncoder("test_vit", 32, 16, patch_size=8, depth=1, pretrained=False).waves
    torch.testing.assert_close(waves @ waves.T, torch.eye(16))
    assert waves[0].allclose(torch.tensor(1 / 4)), "the first sees the mean of all patches"
    grid = waves.view(16, 4, 4)
    changes = [round(sum(wave.diff(dim=axis).square().sum().item() for axis in (0, 1)), 5) for wave in grid]
    assert changes[0] == 0 and changes[:6] == sorted(changes)[:6], "what is slow changes little"


def test_without_the_other_codes_the_first_one_paints_all_patches_alike_but_for_their_positions():
    decoder = WaveDecoder(4, 8, 16, patch_size=4, width=16, heads=2, depth=1)
    torch.nn.init.zeros_(decoder.positions)
    vectors = torch.zeros(1, 4, 8)
    torch.nn.init.zeros_(decoder.embed.bias)
    vectors[:, 0] = torch.randn(8, generator=torch.Generator().manual_seed(0))
    patches = decoder(vectors).unfold(2, 4, 4).unfold(3, 4, 4)
    torch.testing.assert_close(patches, patches[:, :, :1, :1].expand_as(patches))
