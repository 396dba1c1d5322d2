"""The randomness of crops."""

import random

from vltok.pictures.crops import crop_generator


def test_a_name_that_is_no_text_gives_a_crop_like_any_other() -> None:
    draws = {key: crop_generator(0, "training", 1, key).random() for key in ("caf\udce9.png", "cafe.png")}
    assert len(set(draws.values())) == 2
    # those of text are what they always were
    assert draws["cafe.png"] == random.Random("0/training/1/cafe.png").random()
