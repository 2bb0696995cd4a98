import torch

from farm.methods.edit_infinity.analysis import (
    attention_analysis,
    candidates_sheet,
    heat_colours,
)


def test_three_panels_side_by_side():
    image = torch.full((3, 32, 24), 0.5)
    score = torch.zeros(8, 6)
    score[2:4, 1:3] = 1
    found = attention_analysis(image, score, score > 0.5)
    assert found.shape == (3, 32, 24 * 3 + 2 * 8)
    assert found.min() >= 0
    assert found.max() <= 1
    assert torch.equal(found[:, :, :24], image)
    overlay = found[:, :, -24:]
    assert torch.equal(overlay[:, 12, 7], image[:, 12, 7]), "inside, the picture is as it was"
    assert (overlay[:, 30, 20] < image[:, 30, 20]).all(), "outside it is darker"
    assert overlay[:, 8, 4].tolist() != overlay[:, 12, 7].tolist(), "the rim is outlined"


def test_more_attention_is_brighter():
    levels = torch.linspace(0, 1, 11)[None]
    brightness = heat_colours(levels).mean(0)[0]
    assert (brightness.diff() > 0).all()


def test_a_map_that_is_the_same_everywhere_is_drawn_too():
    found = attention_analysis(torch.rand(3, 8, 8), torch.ones(2, 2), torch.zeros(2, 2).bool())
    assert found.isfinite().all()


def test_drawings_lie_beside_each_other_in_rows_of_four():
    drawings = [torch.full((3, 6, 10), 0.1 * n) for n in range(5)]
    sheet = candidates_sheet(drawings)
    assert sheet.shape == (3, 2 * (6 + 8), 4 * (10 + 8))
    for number, drawing in enumerate(drawings):
        top, left = (number // 4) * 14 + 4, (number % 4) * 18 + 4
        assert torch.equal(sheet[:, top : top + 6, left : left + 10], drawing)
    assert (sheet[:, 14:, 18:] == 1).all(), "no drawing, and white"


def test_large_drawings_are_shown_smaller():
    sheet = candidates_sheet([torch.rand(3, 512, 256)] * 2)
    assert sheet.shape == (3, 256 + 8, 2 * (128 + 8))
