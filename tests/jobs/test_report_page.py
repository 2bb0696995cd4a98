import base64
import html
import re
from html.parser import HTMLParser

import pytest
import torch

from farm.images import decode_image, encode_png
from farm.metrics.psnr import psnr
from jobs.report_page import Fact, Failure, FailureGroup, ReportSummary, render_report
from jobs.report_rows import build_row, changed_words
from tests.jobs.outcome_examples import done_edit

EVIL = "<script>alert('x')</script> & \"quotes\""


def picture(seed: int, side: int = 64) -> bytes:
    generator = torch.Generator().manual_seed(seed)
    return encode_png(torch.rand(3, side, side, generator=generator))


def files(side: int = 64) -> dict[str, bytes]:
    return {
        "input": picture(0, side),
        "edited.png": picture(1, side),
        "truth": picture(2, side),
        "mask.png": encode_png(torch.ones(1, side, side)),
        "attention.png": encode_png(torch.zeros(1, side, side)),
        "metrics.json": b'{"reconstruction_psnr": 31.23, "note": "not a figure"}',
    }


def summary(**changes) -> ReportSummary:
    fields = {
        "title": f"job {EVIL}",
        "subtitle": "1 edit",
        "tiles": (Fact("done", "1"),),
        "provenance": (Fact("command", f"editfarm {EVIL}"),),
        "failures": (),
        "done": 1,
        "shown": 1,
        "version": "0.1.0",
        "written": "today",
    }
    return ReportSummary(**(fields | changes))


class Page(HTMLParser):
    """What a browser would meet: elements with attributes, and text outside of style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def images(self) -> list[dict]:
        return [attributes for tag, attributes in self.elements if tag == "img"]


def test_what_users_wrote_is_text_and_never_markup():
    row = build_row(
        done_edit(source_prompt=f"a ball {EVIL}", target_prompt=f"a cube {EVIL}"),
        files().__getitem__,
    )
    group = FailureGroup(EVIL, 1, (Failure(EVIL, 2, EVIL),))
    text = render_report(summary(failures=(group,)), [row])
    page = Page(text)
    assert "script" not in {tag for tag, _ in page.elements}
    assert "<script>" not in text
    assert html.escape("<script>alert('x')</script>", quote=False).split("'")[0] in text


def test_the_page_asks_for_nothing_outside_itself():
    row = build_row(done_edit(truth="truth/1"), files().__getitem__)
    text = render_report(summary(), [row])
    assert not re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r"base64,[^\"]*", "", text))
    for tag, attributes in Page(text).elements:
        assert tag not in {"link", "script", "iframe", "object"}
        assert set(attributes) & {"href", "srcset", "action"} == set()


def test_all_pictures_are_embedded_and_small_ones_bit_for_bit():
    stored = files()
    row = build_row(done_edit(truth="truth/1"), stored.__getitem__)
    images = Page(render_report(summary(), [row])).images()
    names = ["input", "edited.png", "truth", "mask.png", "attention.png"]
    labels = ["before", "after", "true edit", "mask", "attention"]
    assert [image["alt"].split(" of ")[0] for image in images] == labels
    for image, name in zip(images, names, strict=True):
        kind, _, data = image["src"].partition(",")
        assert kind == "data:image/png;base64"
        assert image["class"] == "pixelated"
        shown = decode_image(base64.b64decode(data)).image
        torch.testing.assert_close(shown, decode_image(stored[name]).image, rtol=0, atol=0)


def test_large_pictures_are_smooth_and_small_in_bytes():
    row = build_row(done_edit(), files(side=640).__getitem__)
    images = Page(render_report(summary(), [row])).images()
    assert len(images) == 4  # no true edit
    for image in images:
        assert image["src"].startswith("data:image/jpeg;base64,")
        assert "class" not in image
    shown = decode_image(base64.b64decode(images[0]["src"].partition(",")[2])).image
    assert shown.shape == (3, 480, 480)


def test_figures_compare_the_edit_and_the_source_with_the_truth():
    stored = files()
    row = build_row(done_edit(truth="truth/1"), stored.__getitem__)
    before, after, truth = (
        decode_image(stored[n]).image[None] for n in ("input", "edited.png", "truth")
    )
    figures = {fact.label: fact.value for fact in row.figures}
    assert figures["PSNR to the true edit"] == f"{psnr(after, truth).item():.1f} dB"
    assert figures["of the unedited picture"] == f"{psnr(before, truth).item():.1f} dB"
    assert figures["reconstruction PSNR"] == "31.23 dB"
    assert "note" not in figures


def test_a_truth_of_another_size_is_shown_and_not_compared():
    stored = files() | {"truth": picture(2, 32)}
    row = build_row(done_edit(truth="truth/1"), stored.__getitem__)
    assert [p.label for p in row.pictures].count("true edit") == 1
    assert not any("true edit" in fact.label for fact in row.figures)


@pytest.mark.parametrize(
    ("source", "target", "old", "new"),
    [
        ("a red ball", "a blue ball", ["red"], ["blue"]),
        ("a ball", "a striped ball", [], ["striped"]),
        ("a big red ball on sand", "a ball on snow", ["big", "red", "sand"], ["snow"]),
        ("a a a", "a a", ["a"], []),
    ],
)
def test_changed_words(source, target, old, new):
    before, after = changed_words(source, target)
    assert " ".join(word.text for word in before) == source
    assert " ".join(word.text for word in after) == target
    assert [word.text for word in before if word.changed] == old
    assert [word.text for word in after if word.changed] == new


def test_what_is_not_shown_is_said():
    row = build_row(done_edit(), files().__getitem__)
    text = render_report(summary(done=500, shown=1), [row])
    assert "first 1 of 500 finished edits" in text
    failures = tuple(Failure(f"line-{n}", n, "gone") for n in (1, 2))
    text = render_report(summary(failures=(FailureGroup("StoreError", 7, failures),)), [])
    assert "and 5 more" in text
