"""The tests of the pages share a platform, and any two of their files may come to one process: each item is one test's.

An id is known here as far as the source tells it: what an f-string fills in may be anything.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import pytest

FOLDER = Path(__file__).parents[1] / "acceptance"
PLATFORM_OF = {"house": "platform", "known": "guarded"}
"""Who opens an item there, and the fixture with the platform on which they do."""
CREATES = ("create", "create_all")
"""The calls that open one item, and several with the same terms."""
ANYTHING = "*"

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Opened(NamedTuple):
    """Items that one function opens: an id, in which `*` stands for what is not known."""

    platform: str
    item: str
    place: str
    runs_often: bool


def opened(name: str, source: str) -> Iterator[Opened]:
    """What a file of tests opens.

    Raises:
        AssertionError: an id that cannot be told from the source.
    """
    module = ast.parse(source)
    for function in (node for node in module.body if isinstance(node, Function)):
        filled_in = dict(parameters(function))
        for call in ast.walk(function):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in CREATES):
                continue
            who = call.func.value
            if not (isinstance(who, ast.Name) and who.id in PLATFORM_OF):
                continue
            place = f"{name}::{function.name}"
            for named in call.args if call.func.attr == "create_all" else call.args[:1]:
                items = set(texts(named, function, module, filled_in))
                assert items, f"{place}: the id {ast.unparse(named)!r} must be a text, an f-string or one of several"
                often = bool(filled_in) and not (isinstance(named, ast.Name) and named.id in filled_in)
                yield from (Opened(PLATFORM_OF[who.id], item, place, often) for item in items)


def parameters(function: Function) -> Iterator[tuple[str, list[ast.expr]]]:
    """What each name is filled in with by `pytest.mark.parametrize`."""
    for mark in function.decorator_list:
        if not (isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.parametrize"):
            continue
        names, values = mark.args[:2]
        listed = values.elts if isinstance(values, ast.List | ast.Tuple) else []
        if isinstance(names, ast.Constant) and "," not in str(names.value):
            yield str(names.value), listed
            continue
        each = names.elts if isinstance(names, ast.List | ast.Tuple) else []
        told = [str(ast.literal_eval(one)) for one in each] or str(ast.literal_eval(names)).replace(" ", "").split(",")
        for place, one in enumerate(told):
            yield one, [row.elts[place] for row in listed if isinstance(row, ast.Tuple | ast.List)]


def texts(node: ast.expr, function: Function, module: ast.Module, filled_in: Mapping[str, list[ast.expr]]) -> set[str]:
    """Which texts an expression may be; none if that is not known."""

    def of(one: ast.expr) -> set[str]:
        return texts(one, function, module, filled_in)

    match node:
        case ast.Constant(value=str(text)):
            return {text}
        case ast.JoinedStr(values=parts):
            return {"".join(str(part.value) if isinstance(part, ast.Constant) else ANYTHING for part in parts)}
        case ast.Tuple(elts=several) | ast.List(elts=several) | ast.Set(elts=several):
            return set().union(*map(of, several))
        case ast.ListComp(elt=one) | ast.SetComp(elt=one) | ast.GeneratorExp(elt=one):
            return of(one)
        case ast.Name(id=name):
            values = [*filled_in.get(name, ()), *assigned(name, function)] or assigned(name, module)
            return set().union(*(of(value) for value in values if value is not node))
    return set()


def assigned(name: str, within: ast.AST) -> list[ast.expr]:
    """The values to which a name is assigned, or over which it loops."""
    found = []
    for node in ast.walk(within):
        if isinstance(node, ast.Assign):
            pairs = [(target, node.value) for target in node.targets]
        elif isinstance(node, ast.For | ast.AsyncFor | ast.comprehension):
            pairs = [(node.target, node.iter)]
        else:
            continue
        for target, value in pairs:
            if isinstance(target, ast.Name) and target.id == name:
                found.append(value)
            elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                # A starred target takes several values: then the lengths differ, and nothing is known of it.
                found += [b for a, b in zip(target.elts, value.elts, strict=False) if ast.unparse(a) == name]
    return found


def collisions(everything: Iterable[Opened]) -> list[str]:
    """What is wrong, in words."""
    all_opened = sorted(set(everything))
    wrong = [
        f"{one.place} runs several times, and opens {one.item!r} each time"
        for one in all_opened
        if one.runs_often and ANYTHING not in one.item
    ]
    return wrong + [
        f"{one.place} and {other.place} both open {one.item!r} on the fixture {one.platform!r}"
        for one, other in combinations(all_opened, 2)
        if one.platform == other.platform and one.place != other.place and may_be_equal(one.item, other.item)
    ]


@cache
def may_be_equal(one: str, other: str) -> bool:
    """Is there a text that both may be?"""
    if not one or not other:
        return set(one + other) <= {ANYTHING}
    if one[0] == ANYTHING:
        return may_be_equal(one[1:], other) or may_be_equal(one, other[1:])
    if other[0] == ANYTHING:
        return may_be_equal(other, one)
    return one[0] == other[0] and may_be_equal(one[1:], other[1:])


def test_each_item_is_opened_by_one_test() -> None:
    files = sorted(FOLDER.rglob("test_*.py"))
    found = [each for path in files for each in opened(path.name, path.read_text())]
    assert len(found) > 60
    assert collisions(found) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('await house.create("orrery")', 'await house.create("orrery", start_price=10)'),
        ('await house.create("lamp-light")', 'item = f"lamp-{scheme}"\n    await house.create(item)'),
        ('await house.create("oboe")', 'for item in ("lute", "oboe"):\n        await house.create(item)'),
        ('await house.create_all("harp", "oboe", start_price=10)', 'await house.create("oboe")'),
        ('await house.create("coin-7")', "await all_of(house.create(f'coin-{n}') for n in range(9))"),
        ('await known.create("lute")', 'here, there = "harp", "lute"\n    await known.create(there)'),
        ('await house.create(f"{scheme}-lamp")', 'await house.create("light-lamp")'),
    ],
)
def test_an_id_of_two_tests_is_found(one: str, other: str) -> None:
    def of(*bodies: str) -> list[str]:
        files = {
            f"test_{n}.py": f"async def test_it(house, known, scheme):\n    {body}" for n, body in enumerate(bodies)
        }
        return collisions(each for name, source in files.items() for each in opened(name, source))

    assert of(one) == of(other) == []
    (wrong,) = of(one, other)
    assert "test_0.py::test_it" in wrong
    assert "test_1.py::test_it" in wrong
    assert of(one, other.replace("house.", "known.") if "house." in one else other.replace("known.", "house.")) == []


@pytest.mark.parametrize(
    ("argument", "is_wrong"), [('"lamp"', True), ('f"lamp-{scheme}"', False), ("scheme", False), ("SOME", True)]
)
def test_a_test_that_runs_several_times_has_several_items(argument: str, is_wrong: bool) -> None:
    source = f"""
SOME = "lamp"
@pytest.mark.parametrize(("size", "scheme"), [(1, "light"), (2, "dark")])
async def test_it(house, scheme):
    await house.create({argument})
"""
    assert bool(collisions(opened("test_it.py", source))) is is_wrong


def test_an_id_that_the_source_does_not_tell_is_refused() -> None:
    with pytest.raises(AssertionError, match=r"test_it.py::test_it: the id 'made\(\)' must be a text"):
        list(opened("test_it.py", "async def test_it(house):\n    await house.create(made())"))
