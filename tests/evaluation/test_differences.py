"""What differs between two trees."""

from vltok.evaluation.differences import differences, look_up


def test_equal_trees_do_not_differ():
    assert differences({"a": {"b": [1, 2]}, "c": {}}, {"c": {}, "a": {"b": [1, 2]}}) == {}


def test_what_differs_is_named_by_its_dotted_key():
    first = {"data": {"size": 64, "split": "val"}, "seed": 0, "only": {"here": 1}}
    second = {"data": {"size": 48, "split": "val"}, "seed": 0}
    assert differences(first, second) == {"data.size": (64, 48), "only.here": (1, "absent")}


def test_a_value_is_found_at_any_depth():
    tree = {"ratios": {"8": 0.5}, "psnr": 24.0}
    assert look_up(tree, "ratios.8") == 0.5 and look_up(tree, "psnr") == 24.0
    values = {"values": {"kernel_distance/timm:resnet18.a1_in1k": {"value": 0.5}}}
    assert look_up(values, "values.kernel_distance/timm:resnet18.a1_in1k.value") == 0.5
    assert look_up(tree, "ratios.4") is None and look_up(tree, "psnr.of") is None
