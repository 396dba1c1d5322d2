"""What may stand in an error's line."""

from vltok.errors import one_line


def test_a_line_is_one_line_and_says_nothing_to_the_terminal() -> None:
    assert one_line("key 'a'\n  is\t3") == "key 'a' is 3"
    assert one_line("\x1b[31mred\x07 \u202egnp.exe") == "\\x1b[31mred\\x07 \\u202egnp.exe"
    assert one_line("日本 × ü") == "日本 × ü"
    # a file's name need not be UTF-8
    assert one_line("a\udcffb") == "a\\udcffb"


def test_a_very_long_value_is_cut_and_what_follows_stays() -> None:
    line = one_line(f"name '{'x' * 5000}' is too long: choose another")
    assert len(line) < 300 and line.startswith("name 'xxx") and line.endswith("x' is too long: choose another")
    line = one_line("word " * 500 + "remedy")
    assert len(line) <= 420 and line.endswith("word remedy") and " … " in line
