"""The tokenizer's recipe makes what ships."""

import shutil

from farm.zoo.recipes.clip import scenes_tokenizer
from farm.zoo.recipes.parts import install
from farm.zoo.recipes.tokenizer import merge_pairs, write_tokenizer
from farm.zoo.scenes.vocabulary import BACKGROUNDS, COLOUR_NAMES, PATTERNS, SHAPES, SIZES
from farm.zoo.weights import SCENES_FOLDER


def test_the_recipe_writes_the_shipped_tokenizer_to_the_byte(tmp_path):
    write_tokenizer(tmp_path)
    shipped = SCENES_FOLDER / "tokenizer"
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in shipped.iterdir()}
    for path in shipped.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_model_set_in_a_new_folder_has_it(tmp_path):
    shutil.copytree(SCENES_FOLDER / "clip", tmp_path / "export" / "clip")
    install(tmp_path / "export", tmp_path / "set")
    shipped, written = (
        f / "tokenizer" / "tokenizer.json" for f in (SCENES_FOLDER, tmp_path / "set")
    )
    assert written.read_bytes() == shipped.read_bytes()


def test_pairs_merge_by_frequency_and_ties_by_age():
    assert merge_pairs({"low": 5, "lower": 2, "newest": 6})[:3] == [
        ("w", "e"),  # 8: lower and newest
        ("l", "o"),  # 7: low and lower
        ("e", "we"),  # 6, as n-e, we-s and s-t; e is older than n, s and we
    ]
    # all pairs once: characters by their codes, and inside a word a merge only where it stands
    assert merge_pairs({"ba": 1, "ac": 1}) == [("a", "c</w>"), ("b", "a</w>")]
    assert merge_pairs({"aaa": 1}) == [("a", "a"), ("aa", "a</w>")]


def test_every_word_of_the_world_is_one_token():
    tokenizer = scenes_tokenizer()
    for word in (*SHAPES, *COLOUR_NAMES, *PATTERNS, *SIZES, *BACKGROUNDS):
        assert tokenizer.encode(word).pieces == (word,)
