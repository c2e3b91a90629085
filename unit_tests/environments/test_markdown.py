"""The generated part of a page of the documentation."""

import pytest

from environments import markdown
from environments.markdown import BEGIN, END


def test_figures_stand_to_the_right_and_words_to_the_left() -> None:
    table = markdown.table(("what", "which", "seconds"), [("a", "b", "1.0")], left=2)
    assert table == "| what | which | seconds |\n| --- | --- | ---: |\n| a | b | 1.0 |"


def test_the_generated_part_replaces_the_one_before_and_nothing_else() -> None:
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert markdown.fill(page, "new") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"


@pytest.mark.parametrize("page", ["nothing", f"{BEGIN} only", f"{END} {BEGIN}"])
def test_a_page_without_a_place_for_it_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match="no <!-- table"):
        markdown.fill(page, "new")
