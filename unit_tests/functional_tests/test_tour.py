import pytest

from functional_tests.tour import Stop, stops

PAGE = """# A page

```console
$ one --option
a line
...
the end
$ cat > file <<'END'
> first
>
>   second
> END
$ two
```

```sh
$ not of the tour
```

```console
$ three
> of input
printed
```
"""


def test_commands_of_a_page_have_their_input_and_what_they_print() -> None:
    assert list(stops(PAGE)) == [
        Stop("one --option", "a line\n...\nthe end\n"),
        Stop("cat > file <<'END'\nfirst\n\n  second\nEND", ""),
        Stop("two", ""),
        Stop("three\nof input", "printed\n"),
    ]


def test_block_without_a_command_is_refused() -> None:
    with pytest.raises(ValueError, match="no command"):
        list(stops("```console\nprinted\n```\n"))


@pytest.mark.parametrize(
    ("printed", "true"),
    [
        ("a line\nsomething\nmore\nthe end\n", True),
        ("a  line\n12.5 s\nthe   end\n", True),
        ("a line\nsomething\n", False),
        ("before\na line\nsomething\nthe end\n", False),
        ("a line\nsomething\nthe end\nafter\n", False),
    ],
)
def test_dots_stand_for_anything_and_nothing_else_may_differ(printed: str, true: bool) -> None:
    assert Stop("one", "a line\n...\nthe end\n").is_true(printed) is true


def test_command_that_prints_nothing_may_print_nothing() -> None:
    assert Stop("two", "").is_true("")
    assert not Stop("two", "").is_true("something\n")
