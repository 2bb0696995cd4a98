"""The tokenizer's recipe makes what ships."""

from farm.zoo.recipes.clip import scenes_tokenizer
from farm.zoo.recipes.tokenizer import write_tokenizer
from farm.zoo.scenes.vocabulary import BACKGROUNDS, COLOUR_NAMES, PATTERNS, SHAPES, SIZES
from farm.zoo.weights import SCENES_FOLDER


def test_the_recipe_writes_the_shipped_tokenizer_to_the_byte(tmp_path):
    write_tokenizer(tmp_path)
    shipped = SCENES_FOLDER / "tokenizer"
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in shipped.iterdir()}
    for path in shipped.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_every_word_of_the_world_is_one_token():
    tokenizer = scenes_tokenizer()
    for word in (*SHAPES, *COLOUR_NAMES, *PATTERNS, *SIZES, *BACKGROUNDS):
        assert tokenizer.encode(word).pieces == (word,)
