"""Plans of ablations: tables merge, names are filled in, and what does not hold is refused before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.arms import fill, merge, read_plan

PLAN = """
[base]
steps = 5
embedder = "{ear:main}"
[base.weak_losses]
url = 1.0
[ears.main]
[ears.other]
random = true
[arms.one]
title = "one"
[arms.two]
title = "two"
number = 3
after = "one"
ear = "{ear:other}"
steps = 7
weak_losses = { cnt = 2.0 }
prepare = ["python -m training.lists --out {out}/{arm:one}"]
"""


def read(tmp_path: Path, text: str) -> object:
    path = tmp_path / "plan.toml"
    path.write_text(text)
    return read_plan(path)


def test_tables_merge_key_by_key_and_nothing_is_changed() -> None:
    base = {"a": 1, "t": {"x": 1, "y": {"z": 2}}, "l": [1, 2]}
    assert merge(base, {"t": {"y": {"w": 3}}, "l": [3]}) == {"a": 1, "t": {"x": 1, "y": {"z": 2, "w": 3}}, "l": [3]}
    assert base == {"a": 1, "t": {"x": 1, "y": {"z": 2}}, "l": [1, 2]}
    assert merge(base, {}) == base and merge({}, base) == base


def test_places_are_filled_wherever_a_string_is() -> None:
    folders = {("arm", "one"): Path("r/one"), ("ear", "e"): Path("r/e"), ("out", ""): Path("r")}
    value = {"a": "{arm:one}/x", "b": ["{ear:e}", 3], "c": {"d": "{out} {braces}"}}
    assert fill(value, folders) == {"a": "r/one/x", "b": ["r/e", 3], "c": {"d": "r {braces}"}}


def test_a_plan_knows_what_its_arms_need(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(PLAN)
    plan = read_plan(path)
    two = plan.arms["two"]
    assert plan.values(two)["weak_losses"] == {"url": 1.0, "cnt": 2.0}
    assert plan.values(two)["steps"] == 7 and plan.values(plan.arms["one"])["steps"] == 5
    assert plan.needs(two) == (["main", "other"], ["one"]) and two.number == "3"
    assert [arm.name for arm in plan.chosen(("two",))] == ["one", "two"] == [arm.name for arm in plan.chosen(())]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("steps = 7", "stepz = 7", r"arms.two: .*stepz"),
        ("steps = 5", "steps = 'five'", "steps must be int"),
        ("[base]", "colour = 1\n[base]", "colour"),
        ('after = "one"', 'after = "two"', r"earlier arms \['two'\]"),
        ('ear = "{ear:other}"', 'ear = "{ear:third}"', r"ears \['third'\]"),
        ("random = true", "crops = { parts = 'x' }", "parts"),
        ('title = "one"', "", "lacks"),
        ("[arms.one]", "[arms.ears]", "must not be called"),
        ("[ears.main]", '[[compare]]\nname = "n"\nof = "one"\nto = "six"\n[ears.main]', "'six'"),
        ("[ears.main]", '[[compare]]\nname = "n"\nof = "one"\nto = "two"\nlist = "l"\n[ears.main]', "not scored on"),
        ("[ears.main]", '[[recordings]]\nfolder = "f"\nlist = "l"\nphrases = "x"\n[ears.main]', "got 'x'"),
        ("[base]", "[base", "plan.toml"),
    ],
)
def test_what_does_not_hold_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(tmp_path, PLAN.replace(old, new, 1))


@pytest.mark.parametrize("name", ["ablate.toml", "ablate-gpu.toml"])
def test_the_plans_of_the_page_hold(name: str) -> None:
    plan = read_plan(Path(__file__).parents[2] / "training" / "configs" / name)
    assert {"1", "2", "3", "6", "8", "10"} <= {arm.number for arm in plan.arms.values()}
    recordings = {source.folder for source in plan.recordings}
    for arm in plan.arms.values():
        values = plan.values(arm)
        made = any(
            f"--out {values['recordings']} " in f"{step} " for other in plan.arms.values() for step in other.prepare
        )
        assert values["mode"] == "supervised" or values["recordings"] in recordings or made, arm.name
