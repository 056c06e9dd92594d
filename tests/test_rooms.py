"""What keeps mmfuse a house that one can walk through (`make rooms` prints the numbers)."""

import ast

import pytest
import rooms


def test_no_modules_import_each_other():
    assert rooms.circles() == []


def test_no_rooms_import_each_other():
    assert rooms.circles_of_rooms() == []


def test_functions_fit_a_screen():
    assert rooms.long_functions() == {}


def test_functions_have_few_parameters():
    assert rooms.wide_functions() == {}


def test_a_circle_is_found_wherever_it_is_entered():
    arrows = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"e"}}
    assert rooms._circles(arrows) == [{"b", "c"}, {"e"}]


def test_every_line_is_in_a_room():
    lines = rooms.lines_per_room()
    assert sum(lines.values()) == sum(len(path.read_text().splitlines()) for path in rooms.PACKAGE.rglob("*.py"))
    assert "mmfuse/data" in lines


@pytest.mark.parametrize(
    ("code", "parameters", "command"),
    [
        ("def f(a, /, b, *, c): ...", 3, False),
        ("def f(self, a, *args, **options): ...", 1, False),
        ("@app.command('train')\ndef f(a): ...", 1, True),
        ("@functools.cache\nasync def f(cls): ...", 0, False),
    ],
)
def test_parameters_are_counted(code, parameters, command):
    function: ast.FunctionDef = ast.parse(code).body[0]
    assert (rooms._parameters(function), rooms._is_command(function)) == (parameters, command)
