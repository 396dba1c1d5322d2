import pytest

from .__main__ import BENCHMARKS, main
from .table import Row, Setting, markdown


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_each_benchmark_runs_and_writes_its_rows(benchmark, tmp_path, capsys):
    out = tmp_path / "results" / "table.md"
    main([benchmark, "--tiny", "--turns", "1", "--device", "cpu", "--out", str(out)])
    table = out.read_text(encoding="utf-8")
    assert table.count("\n") > 4
    assert capsys.readouterr().out.endswith("\n" + table + "\n")


def test_a_row_tells_the_ratio_of_the_middle_turn_and_whether_it_meets_its_target():
    row = Row("work", "size", "1 s", "other 3 s", [3.0, 1.2, 2.0], target=1.3)
    assert row.cells() == ["work", "size", "1 s", "other 3 s", "2.00 (1.20–3.00)", "1.30 met"]
    assert Row("work", "size", "1 s", "other 1 s", [1.0], target=1.3).cells()[-1] == "1.30 missed"
    assert Row("work", "size", "1 s").cells() == ["work", "size", "1 s", "", "", ""]
    assert "| work | size | 1 s |" in markdown([row], Setting())


def test_an_unknown_benchmark_is_named(capsys):
    with pytest.raises(SystemExit) as end:
        main(["speling"])
    assert end.value.code == 2
    assert "no benchmark is called speling" in capsys.readouterr().err
