import json


def test_recipes_are_listed_with_their_options(peerloom) -> None:
    ended = peerloom("recipes")
    assert ended.code == 0
    assert "coral" in ended.out
    assert "recipe.max_rounds=" in ended.out


def test_recipes_as_json(peerloom) -> None:
    listed = {recipe["name"]: recipe for recipe in json.loads(peerloom("recipes", "--json").out)}
    assert listed["coral"]["options"]["max_rounds"] >= 1
    assert listed["coral"]["sample"].endswith(".jsonl")
