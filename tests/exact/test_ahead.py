"""Loops compiled by a second process: which ones, for which types, and how that process begins and ends."""

import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from dettriton import zoo
from dettriton.benchmarks.steps import made_data
from dettriton.data.rhythm_sim import set_labels
from dettriton.exact import _ahead, _jit
from dettriton.train._run import Run

numba = pytest.importorskip("numba")
pytestmark = pytest.mark.skipif(not _jit.compiles(), reason="numba is switched off")

BATCH = 4

ONLY_SOME = """
import sys
from dettriton.exact import _ahead
_ahead.LOOPS = [row for row in _ahead.LOOPS if row[0].__name__ in sys.argv[1:]]
"""
SECOND = ONLY_SOME + "_ahead.main()"
FIRST = ONLY_SOME + "print(*(loop.compile(types) for loop, types in _ahead.LOOPS))"


def python(script: str, *arguments: str, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options
    )


def test_loops_are_those_of_a_training_in_the_order_of_their_first_calls(monkeypatch):
    called = {}

    def call(loop, *arguments):
        called.setdefault(loop.__name__, set()).add(tuple(str(numba.typeof(a)) for a in arguments))
        return loop.dispatcher(*arguments)

    monkeypatch.setattr(_jit.Jitted, "__call__", call)
    set_labels("default")
    recipe = zoo.recipe(zoo.DEFAULT)
    recipe = replace(recipe, train=replace(recipe.train, batch_size=BATCH))
    Run(recipe, {"train": made_data(recipe.data.name, BATCH)}, "cpu").step(0)
    listed = {loop.__name__: {tuple(str(t) for t in _jit.numba_types(types))} for loop, types in _ahead.LOOPS}
    assert [*called] == [*listed]
    assert called == listed


def test_what_the_second_process_compiled_the_first_one_loads(tmp_path):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    with python(SECOND, "relu_gradient", "adam", env=environment) as second:
        assert second.wait(120) == 0
    with python(FIRST, "relu_gradient", "adam", "round_all", env=environment) as first:
        # in the order of LOOPS: only round_all has to be compiled
        assert first.communicate(timeout=120)[0].split() == ["True", "False", "False"]


def test_the_second_process_ends_with_the_input_that_the_first_one_holds(tmp_path):
    loops = [loop.__name__ for loop, _ in _ahead.LOOPS]
    with python(SECOND, *loops, env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}) as second:
        second.stdin.close()
        assert second.wait(60) == 1


@pytest.fixture
def first_loop(monkeypatch):
    loop = SimpleNamespace(missed=True, cached=True)
    loop.compile = lambda types: loop.missed
    monkeypatch.setattr(_ahead, "LOOPS", ((loop, ()),))
    monkeypatch.setattr(_ahead.os, "cpu_count", lambda: 2)
    return loop


def test_a_second_process_begins_where_the_cache_lacks_the_first_loop_and_ends_with_the_context(first_loop, tmp_path):
    with _ahead.LoopsAhead("cpu") as ahead:
        assert ahead._process.poll() is None
    assert ahead._process.returncode is not None


@pytest.mark.parametrize("reason", ["in the cache", "no cache", "one processor", "a GPU", "switched off"])
def test_no_second_process_where_it_is_of_no_use(first_loop, monkeypatch, reason):
    first_loop.missed = reason != "in the cache"
    first_loop.cached = reason != "no cache"
    if reason == "one processor":
        monkeypatch.setattr(_ahead.os, "cpu_count", lambda: 1)
    if reason == "switched off":
        monkeypatch.setattr(_ahead, "compiles", lambda: False)
    with _ahead.LoopsAhead("cuda" if reason == "a GPU" else "cpu") as ahead:
        assert ahead._process is None


def test_a_second_process_that_cannot_begin_is_done_without(first_loop, monkeypatch):
    def refused(*_, **__):
        raise OSError("no more processes")

    monkeypatch.setattr(_ahead.subprocess, "Popen", refused)
    with _ahead.LoopsAhead("cpu") as ahead:
        assert ahead._process is None
