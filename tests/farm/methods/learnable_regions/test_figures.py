import json

import pytest
import torch

from farm.images import fit_to_model
from farm.masks import Box
from farm.methods.learnable_regions.figures import draw_attention, draw_boxes, draw_curve, report
from tests.farm.methods.learnable_regions.runs import changed, whole


def test_outlines_of_boxes():
    image = torch.zeros(3, 256, 300)
    drawn = draw_boxes(image, [Box(10, 20, 110, 90)], Box(150, 20, 200, 90))
    touched = (drawn != 0).any(0)
    expected = torch.zeros(256, 300, dtype=torch.bool)
    for left, right in ((10, 110), (150, 200)):
        expected[20:90, left:right] = True
        expected[23:87, left + 3 : right - 3] = False  # three pixels of 256, as released
    assert torch.equal(touched, expected)
    assert drawn[0, 20, 50] > 0.9  # yellow
    assert drawn[0, 20, 160] < 0.2  # green
    assert (image == 0).all()


@pytest.mark.parametrize("box", [Box(0, 0, 2, 2), Box(290, 250, 300, 256), Box(0, 0, 300, 256)])
def test_small_boxes_and_those_at_the_border_stay_in_the_picture(box):
    drawn = draw_boxes(torch.zeros(3, 256, 300), [box])
    rows, columns = torch.nonzero((drawn != 0).any(0), as_tuple=True)
    assert box.left <= columns.min() <= columns.max() < box.right
    assert box.top <= rows.min() <= rows.max() < box.bottom


@pytest.mark.parametrize(("height", "width"), [(64, 64), (40, 100), (300, 100)])
def test_salient_cells_are_red_and_anchors_are_marked(height, width):
    image = torch.full((3, height, width), 0.5)
    _, placement = fit_to_model(image, 64, mode="pad")
    saliency = torch.zeros(8, 8)
    saliency[4, 4] = 1.0
    saliency[3, 3] = 1.0
    drawn = draw_attention(image, saliency, torch.tensor([[3, 3]]), placement)
    square = placement.square

    def place(pixel: float, start: int, length: int, size: int) -> int:
        return round((pixel - start) * size / length)

    y, marked = (
        place(28, square.top, square.height, height),
        place(28, square.left, square.width, width),
    )
    assert drawn[1, y, marked] > 0.8  # yellow
    y, hot = (
        place(36, square.top, square.height, height),
        place(36, square.left, square.width, width),
    )
    assert drawn[0, y, hot] > 0.7
    assert drawn[2, y, hot] < 0.3
    assert torch.equal(drawn[:, 0, 0], image[:, 0, 0])


def test_the_report_is_json_and_holds_every_region():
    found = whole()
    table = json.loads(json.dumps(report(found.edit, found.search), allow_nan=False))
    assert table["winner"] == table["candidates"][0]
    assert table["winner"]["box"] == list(found.edit.box)
    assert len(table["candidates"]) == len(found.edit.candidates)
    assert torch.tensor(table["table"]).shape == found.search.state.table.shape
    assert table["loss_curve"] == found.search.curve.tolist()
    assert sum(table["probabilities_after"][0]) == pytest.approx(1)


def test_what_was_not_drawn_is_null():
    found = whole(changed(search__chooser="untrained"))
    assert report(found.edit, found.search)["table"] == [[None, None], [None, None]]


def test_a_curve_falls_from_the_top_left_to_the_bottom_right():
    drawn = draw_curve(torch.tensor([3.0, 2.0, 1.0]), 20, 40)
    black = (drawn[0] == 0).nonzero()
    rows = [black[black[:, 1] == column, 0].float().mean().item() for column in range(40)]
    assert rows == sorted(rows)
    assert (rows[0], rows[-1]) == (4, 15)  # the margin of 4 pixels is kept
    assert rows[20] == pytest.approx(9.5, abs=1)
    assert draw_curve(torch.tensor([1.0]), 20, 40).shape == (3, 20, 40)
