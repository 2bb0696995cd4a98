"""Words for scenes: one canonical caption, and the varied ones that training sees."""

from random import Random

from farm.zoo.scenes.scenes import Scenes
from farm.zoo.scenes.vocabulary import BACKGROUNDS, COLOUR_NAMES, PATTERNS, SHAPES, SIZE, SIZES

_PREFIXES = ("a photo of {}", "{}", "a picture of {}", "an image of {}", "there is {}")
_IN = frozenset({"sky", "night", "water", "snow"})


def article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def background_phrase(background: int) -> str:
    """Three words for every background, so that a background edit keeps the number of words."""
    name = BACKGROUNDS[background]
    return f"{'in' if name in _IN else 'on'} the {name}"


def object_phrase(
    scenes: Scenes, scene: int, slot: int, *, say_plain: bool = False, say_size: bool = False
) -> str:
    """The object in words: size, pattern, colour, shape; a plain pattern only where asked."""
    words: list[str] = []
    size = SIZES[int(scenes.size[scene, slot])]
    if say_size and size != "medium":
        words.append(size)
    pattern = PATTERNS[int(scenes.pattern[scene, slot])]
    if pattern != "plain" or say_plain:
        words.append(pattern)
    words.append(COLOUR_NAMES[int(scenes.colour[scene, slot])])
    words.append(SHAPES[int(scenes.shape[scene, slot])])
    return f"{article(words[0])} {' '.join(words)}"


def caption(scenes: Scenes, scene: int, *, plain_slot: int | None = None) -> str:
    """The canonical caption of a scene.

    Args:
        scenes: the batch.
        scene: index into it.
        plain_slot: the object of which even a plain pattern is said (pattern edits need the word).
    """
    phrases = [
        object_phrase(scenes, scene, slot, say_plain=slot == plain_slot)
        for slot in range(int(scenes.count[scene]))
    ]
    return f"a photo of {' and '.join(phrases)} {background_phrase(int(scenes.background[scene]))}"


def varied_caption(scenes: Scenes, scene: int, random: Random) -> tuple[str, list[int]]:
    """A caption as training sees it, and the objects in the order of their nouns.

    Varied are the opening, which attributes are said, places, relations, the order of the objects
    and how the background is put.
    """
    count = int(scenes.count[scene])
    order = list(range(count))
    random.shuffle(order)
    relation = _relation(scenes, scene, order) if count == 2 and random.random() < 0.25 else None
    phrases: list[str] = []
    for slot in order:
        phrase = object_phrase(
            scenes,
            scene,
            slot,
            say_plain=random.random() < 0.4,
            say_size=random.random() < 0.5,
        )
        place = _places(scenes, scene, slot)
        if relation is None and place and random.random() < 0.2:
            phrase += f" {random.choice(place)}"
        phrases.append(phrase)
    objects = f" {relation or 'and'} ".join(phrases)
    text = random.choice(_PREFIXES).format(f"{objects} {_varied_background(scenes, scene, random)}")
    return text, order


def _varied_background(scenes: Scenes, scene: int, random: Random) -> str:
    background = int(scenes.background[scene])
    name = BACKGROUNDS[background]
    others = (f"{'in' if name in _IN else 'on'} {name}", f"with a {name} background")
    return background_phrase(background) if random.random() < 0.6 else random.choice(others)


def _places(scenes: Scenes, scene: int, slot: int) -> list[str]:
    x, y = (float(c) / SIZE for c in scenes.geometry[scene, slot, :2])
    places: list[str] = []
    if x < 0.38 or x > 0.62:
        places.append("on the left" if x < 0.5 else "on the right")
    if y < 0.38 or y > 0.62:
        places.append("at the top" if y < 0.5 else "at the bottom")
    return places


def _relation(scenes: Scenes, scene: int, order: list[int]) -> str | None:
    first, second = order
    dx, dy = (scenes.geometry[scene, second, :2] - scenes.geometry[scene, first, :2]).tolist()
    if abs(dx) > abs(dy) + 4:
        return "left of" if dx > 0 else "right of"
    if abs(dy) > abs(dx) + 4:
        return "above" if dy > 0 else "below"
    return None
