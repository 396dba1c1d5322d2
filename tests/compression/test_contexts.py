"""How often codes occur beside others."""

import numpy as np
import pytest
import torch

from vltok.codes import Codes, CodeSpec
from vltok.compression.contexts import CLASSES, Contexts, helpful, states_of
from vltok.compression.frequencies import TOTAL
from vltok.compression.neighbours import Neighbours, neighbours
from vltok.compression.table_coder import TableCoder, measured_bits
from vltok.compression.tables import CodeTables
from vltok.testing.outcomes import random_codes

SPEC = CodeSpec(200, (8, 4))


def gradual(images: int, seed: int) -> Codes:
    """Codes whose numbers, in an order that nobody knows, follow a plane: as brightness does in photographs."""
    generator = torch.Generator().manual_seed(seed)
    grains = torch.randint(2, (images, 6, 6), generator=generator)
    planes = torch.rand(images, 3, 1, 1, generator=generator) * torch.tensor([150, 5, 5]).view(3, 1, 1)
    places = torch.arange(12.0)
    values = planes[:, 0] + planes[:, 1] * places[:, None] - planes[:, 2] * places + 55
    values = (values + 4 * torch.randn(values.shape, generator=generator)).long().clamp(0, 199)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    return Codes.from_code_map(order[values], grains, SPEC)


def beside(codes: Codes) -> list[Neighbours]:
    code_map, grains = codes.to_code_map(SPEC).numpy(), codes.grains.numpy()
    return [neighbours(code_map, grains, granularity, SPEC) for granularity in range(2)]


def test_codes_of_a_class_have_like_neighbours() -> None:
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    contexts = Contexts.measure(beside(gradual(300, 1)), SPEC)
    for classes in contexts.classes:
        assert classes.min() == 0 and classes.max() == CLASSES - 1
        values = classes[order]  # along what nobody knew
        assert np.abs(np.diff(values)).mean() < 0.5 * np.abs(np.diff(classes)).mean()


def test_every_class_can_follow_everything_and_rows_are_frequencies() -> None:
    contexts = Contexts.measure(beside(gradual(20, 1)), SPEC)
    found = {"classes": contexts.classes.shape, "contexts": contexts.frequencies.shape}
    assert found == Contexts.shapes(SPEC)
    assert contexts.frequencies.min() >= 1 and (contexts.frequencies.sum(-1) == TOTAL).all()
    assert states_of(contexts.classes).max() == contexts.frequencies.shape[1] - 1


def test_pictures_that_were_not_counted_take_less_beside_what_they_hold() -> None:
    tables = CodeTables.measure([gradual(100, seed) for seed in range(4)], SPEC)
    assert tables.contexts is not None
    unseen = gradual(30, 9)
    bits, alone = (
        measured_bits(
            unseen, coder=TableCoder(CodeTables(SPEC, tables.ids, tables.grains, None, contexts), SPEC)
        ).mean()
        for contexts in (tables.contexts, None)
    )
    assert bits < 0.8 * alone


def test_of_many_codes_some_batches_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vltok.compression.tables._MOST_BESIDE", 3 * len(gradual(20, 0).ids))
    seen = []
    monkeypatch.setattr("vltok.compression.tables.helpful", lambda beside, spec: seen.extend(beside))
    batches = [gradual(20, seed) for seed in range(14)]
    tables = CodeTables.measure(batches, SPEC)
    assert np.array_equal(tables.ids, CodeTables.measure([Codes.concatenate(batches)], SPEC).ids)
    kept = [sum(len(part.ids) for part in parts) for parts in seen[:-1]]
    assert kept == [len(batches[number].ids) for number in (0, 9)]


def test_what_says_nothing_of_other_pictures_is_not_kept() -> None:
    spec = CodeSpec(SPEC.codebook_size, SPEC.factors, (6, 6))
    assert helpful([beside(random_codes(spec, 20, seed)) for seed in range(4)], SPEC) is None
    batch = beside(gradual(20, 1))
    assert helpful([batch], SPEC) is not None
    single = [beside(image) for image in random_codes(spec, 8, 1) for _ in range(4)]
    assert helpful(single, SPEC) is None and helpful(single[:1], SPEC) is None


def test_an_image_at_several_rates_is_on_one_side() -> None:
    """Batches of the same images, whose codes say nothing of other ones."""
    spec = CodeSpec(SPEC.codebook_size, SPEC.factors, (6, 6))
    assert helpful([beside(random_codes(spec, 20))] * 4, SPEC) is None
