"""Which of several drawings is taken, and that one alone is what it always was."""

import math

import pytest
import torch

from farm.errors import EditDivergedError
from farm.methods.edit_infinity.choosing import Choice, Looks, choose, part_around, seeds_of
from tests.farm.methods.edit_infinity.runs import small
from tests.farm.methods.edit_infinity.test_stages import Edit

SOURCE = torch.tensor([1.0, 0.0, 0.0])
WAS, ASKED = torch.tensor([0.0, 1.0, 0.0]), torch.tensor([0.0, 0.0, 1.0])


def at(*place):
    return torch.tensor(place)


ALIKE = torch.eye(2)
"""Tokens of two places that have nothing in common: self-similarity [[1, 0], [0, 1]]."""
FLAT = torch.ones(2, 2)
"""Tokens of two places that are the same: self-similarity [[1, 1], [1, 1]]."""


def chosen(*drawings, source=SOURCE, tokens=None, weight=0.0):
    """Of drawings that were looked at in one place."""
    tokens = [ALIKE] * len(drawings) if tokens is None else tokens
    seen = Looks(torch.stack(drawings)[:, None], torch.stack(tokens)[:, None])
    return choose(seen, Looks(source[None], ALIKE[None]), (WAS, ASKED), weight)


def test_scores_are_the_cosines_of_the_move_and_with_the_target():
    drawing = SOURCE + 3 * (ASKED - WAS)
    (found,) = chosen(drawing).candidates
    assert found.direction == pytest.approx(1)
    assert found.text == pytest.approx(3 / math.sqrt(1 + 9 + 9))
    assert found.score == pytest.approx(found.direction + found.text)


def test_the_drawing_that_moved_as_the_words_did_is_chosen():
    against, along, aside = SOURCE - (ASKED - WAS), SOURCE + (ASKED - WAS), at(2.0, 0.0, 0.0)
    found = chosen(against, aside, along)
    assert found.number == 2
    assert found.best_first == (2, 1, 0)


def test_every_look_counts_alike():
    along, aside = SOURCE + (ASKED - WAS), at(2.0, 0.0, 0.0)
    looks = torch.stack([torch.stack([along, aside]), torch.stack([aside, along])])
    tokens = torch.stack([torch.stack([ALIKE, FLAT]), torch.stack([FLAT, ALIKE])])
    was = Looks(SOURCE.expand(2, 3), ALIKE.expand(2, 2, 2))
    first, second = choose(Looks(looks, tokens), was, (WAS, ASKED), 1.0).candidates
    assert first == second
    assert first.structure == pytest.approx((0 + math.sqrt(1 / 2)) / 2)
    assert first.direction == pytest.approx((1 + 0) / 2)
    assert first.text == pytest.approx((1 / math.sqrt(3) + 0) / 2)


def test_structure_is_the_root_mean_square_difference_of_self_similarities():
    """Two of the four cosines differ by one."""
    (same,) = chosen(ASKED, tokens=[3 * ALIKE], weight=2.0).candidates
    assert same.structure == 0
    assert same.score == pytest.approx(same.direction + same.text)
    (other,) = chosen(ASKED, tokens=[FLAT], weight=2.0).candidates
    assert other.structure == pytest.approx(math.sqrt(2 / 4))
    # a difference of numbers near one, in single precision
    assert other.score == pytest.approx(same.score - 2 * math.sqrt(2 / 4), abs=1e-6)


@pytest.mark.parametrize(("weight", "number"), [(0.0, 0), (1.0, 1)])
def test_of_two_that_follow_the_words_the_one_built_as_the_source_is_chosen(weight, number):
    better, good = SOURCE + (ASKED - WAS), SOURCE + 0.9 * (ASKED - WAS)
    found = chosen(better, good, tokens=[FLAT, ALIKE], weight=weight)
    assert found.number == number
    assert found.best_first == (number, 1 - number)


def marked(top, bottom, left, right, cells=8):
    inside = torch.zeros(cells, cells, dtype=torch.bool)
    inside[top:bottom, left:right] = True
    return inside


@pytest.mark.parametrize(
    ("inside", "size", "box"),
    [
        (marked(2, 4, 2, 4), (64, 64), (8, 8, 40, 40)),  # small: half the picture around it
        (marked(0, 1, 7, 8), (64, 64), (32, 0, 64, 32)),  # in a corner: moved inwards
        (marked(1, 7, 2, 4), (64, 64), (0, 8, 48, 56)),  # tall: as wide as tall, moved inwards
        (marked(0, 8, 0, 8), (64, 64), (0, 0, 64, 64)),
        (marked(0, 0, 0, 0), (64, 64), (0, 0, 64, 64)),  # nothing is marked: all
        (marked(0, 8, 0, 8), (32, 64), (16, 0, 48, 32)),  # longer than the shorter side
        (marked(2, 3, 1, 2, cells=3), (7, 10), (3, 3, 7, 7)),  # cells of no whole pixels
    ],
)
def test_the_part_that_is_looked_at_lies_around_the_region(inside, size, box):
    assert part_around(inside, *size) == box


def test_the_first_of_equals_is_chosen():
    found = chosen(ASKED, ASKED.clone())
    assert found.number == 0
    assert found.best_first == (0, 1)


def test_a_drawing_that_is_not_finite_is_an_error():
    with pytest.raises(EditDivergedError, match="2 drawings"):
        chosen(ASKED, at(math.nan, 0.0, 0.0))
    with pytest.raises(EditDivergedError, match="2 drawings"):
        chosen(ASKED, ASKED, tokens=[ALIKE, math.nan * ALIKE])


def test_seeds_differ_and_more_candidates_keep_those_before():
    few, many = seeds_of(7, 3), seeds_of(7, 8)
    assert few[0] == 7
    assert many[:3] == few
    assert len(set(many)) == 8
    assert not set(many[1:]) & set(seeds_of(8, 8)[1:])


class Taking:
    """Takes the drawing of a number, and remembers what it was shown."""

    def __init__(self, number):
        self.number = number

    def choose(self, source, drawings, inside):
        self.source, self.inside = source, inside
        return Choice(self.number, chosen(*torch.eye(len(drawings))).candidates)


class ChosenEdit(Edit):
    """An edit of three candidates."""

    def __init__(self, number, **more):
        self.taking = Taking(number)
        super().__init__(small(candidates=3), word=None, **more)

    def stage(self, name):
        object.__setattr__(self.session, "chooser", self.taking)
        return super().stage(name)


def test_the_chosen_drawing_is_the_edit_and_the_first_is_that_without_a_choice():
    alone = Edit(small(), word=None)
    assert alone.output.choice is None
    found = ChosenEdit(2)
    output = found.output
    assert output.choice.number == 2
    assert torch.equal(output.image, output.drawings[2])
    assert torch.equal(output.drawings[0], alone.output.image)
    assert not torch.equal(output.drawings[1], output.drawings[2])
    assert torch.equal(found.taking.source, found.stored["codes"].image)
    assert torch.equal(found.taking.inside, found.region.inside)
    again = ChosenEdit(1)
    assert torch.equal(again.output.image, output.drawings[1])
    assert output.figures["change"] != again.output.figures["change"]
