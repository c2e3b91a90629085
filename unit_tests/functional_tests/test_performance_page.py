import pytest

from functional_tests.performance_page import Bar, Measured, Row, content, gantt, packages


@pytest.mark.parametrize(("ours", "holds"), [(1.0, True), (2.3, True), (2.31, False)])
def test_row_holds_up_to_its_limit(ours: float, holds: bool) -> None:
    assert Row("this", ours, "that", 2.0, 1.15).holds is holds


def test_row_has_both_figures_their_ratio_and_the_limit() -> None:
    row = Row("this", 3.0, "that", 2.0, 1.15, "MB")
    assert row.cells == ("this", "that", "3.00 MB", "2.00 MB", "1.50", "1.15")
    assert str(row) == "this: 3.00 MB; that: 2.00 MB; 1.50 (limit 1.15) OVER"


def test_bars_stand_in_the_order_in_which_they_began_in_milliseconds() -> None:
    picture = gantt({"ours": [Bar("second", 1.5, 2), Bar("first", 0, 3.25)]})
    assert picture.splitlines()[-3:] == ["    first 3.2 s :0, 3250", "    second 2.0 s :1500, 3500", "```"]


def test_packages_are_the_big_ones_with_the_parts_that_stand_beside_them() -> None:
    sizes = {"redis": 5.0, "yaml": 2.0, "_yaml.cpython-311.so": 2.0, "small": 0.1}
    assert [(name, size) for name, _, size in packages(sizes)] == [("`redis`", "5.0"), ("`yaml`", "4.0")]


def test_package_that_nobody_has_given_a_reason_for_is_an_error() -> None:
    with pytest.raises(KeyError, match="unheard_of"):
        packages({"unheard_of": 100.0})


def test_parts_of_a_run_are_put_together_on_the_page() -> None:
    one = Measured([Row("this", 3, "that", 2, 2)], {"ours": [Bar("first", 0, 3)]})
    page = content("two processors", one + Measured([Row("more", 1, "less", 2, 1)], packages={"redis": 5.0}))
    assert "two processors" in page
    assert page.index("| this |") < page.index("| more |") < page.index("first 3.0 s") < page.index("`redis`")
