"""The page of figures: tables from records, remarks from the template, pictures beside it."""

import json
import xml.etree.ElementTree as ET

import pytest
from PIL import Image
from typer.testing import CliRunner

from jobs.evaluation.page import Record, choice_table, differences_table, types_table
from jobs.evaluation.published import PUBLISHED
from jobs.evaluation.tradeoff import Point, draw_tradeoff
from jobs.quality_page import app, render


def summary(success, edits=4, seconds=2.0):
    figures = {"success": success, "asked": 1.0, "outside_psnr": 40.0, "inside_psnr": 15.0}
    figures |= {"region_iou": 0.5, "accelerator_seconds_per_edit": seconds}
    intervals = {name: [value - 0.1, value + 0.1] for name, value in figures.items()}
    return {"edits": edits, "failed": 0, **figures, "intervals": intervals}


def entry(success, edits=()):
    by_type = {"colour": summary(success, 2), "shape": summary(success / 2, 2)}
    return {"summary": summary(success) | {"by_type": by_type}, "edits": list(edits)}


def between(mean, low):
    own = {"success": {"mean": mean, "low": low, "high": 0.5, "edits": 4}}
    return {**own, "by_type": {"colour": own, "shape": own}}


CHOICES = [
    {"type": "colour", "error": None, "chose_style_diffusion": 1.0, "chose_learnable_regions": 0.0},
    {"type": "shape", "error": None, "chose_style_diffusion": 0.0, "chose_learnable_regions": 1.0},
]
RECORD = {
    **entry(0.9),
    "arms": {
        "learnable_regions": {"method": "learnable_regions", **entry(0.4)},
        "auto": {"method": "auto", **entry(0.95, CHOICES)},
        "sdedit": {"method": "sdedit", **entry(0.2)},
    },
    "differences": {"sdedit": between(0.7, 0.3), "auto": between(-0.05, -0.2)},
    "differences_of": {"auto": {"default": between(0.05, -0.2)}},
    "provenance": {
        "command": "editfarm evaluate --json /home/me/farm/out/quality/all.json --store /tmp/x/s",
        "seed": 1,
        "machine": "x86_64, 2 cores, Linux",
        "method": "style_diffusion",
    },
}


def test_types_are_columns_and_a_line_that_is_missed_is_marked():
    table = types_table(Record("all", RECORD), {"colour": 0.9, "shape": 0.55})
    rows = {line.split(" | ")[0].strip("| "): line for line in table.splitlines()}
    assert rows["success"].startswith("| success | .900 [.800, 1.000] | .900")
    assert rows["– line"] == "| – line |  | ≥ .900 | ≥ .550: **missed** |"


def test_differences_are_bold_where_the_whole_interval_is_above_zero():
    table = differences_table(Record("all", RECORD))
    assert "| style_diffusion | sdedit | **+.700 [+.300, +.500]** |" in table
    assert "| style_diffusion | auto | −.050 [−.200, +.500] |" in table
    assert "| auto | style_diffusion |" not in table, "told above with the other sign"


def test_a_method_is_compared_with_its_own_variants_and_with_methods_alone():
    variants = {
        "direct": {"method": "style_diffusion", **entry(0.8)},
        "untrained": {"method": "learnable_regions", **entry(0.1)},
    }
    compared = {name: between(0.1, -0.2) for name in (*variants, "learnable_regions")}
    back = {"default": between(-0.1, -0.2), **{name: between(0.3, 0.2) for name in variants}}
    record = RECORD | {
        "arms": RECORD["arms"] | variants,
        "differences": compared,
        "differences_of": {"learnable_regions": back, "auto": {"default": between(0.05, -0.2)}},
    }
    rows = [line.split(" | ")[:2] for line in differences_table(Record("all", record)).splitlines()]
    assert rows[2:] == [
        ["| style_diffusion", "direct"],
        ["| style_diffusion", "learnable_regions"],
        ["| learnable_regions", "untrained"],
        ["| auto", "style_diffusion"],
    ], "the default arm by its method's name"


def test_the_choice_is_beside_each_single_method_by_type():
    lines = choice_table(Record("all", RECORD)).splitlines()
    assert lines[2] == "| auto | .950 | .950 | .475 |"
    assert lines[3:5] == [
        "| style_diffusion | .900 | .900 | .450 |",
        "| learnable_regions | .400 | .400 | .200 |",
    ]
    assert "| share of learnable_regions | .500 | .000 | 1.000 |" in lines


@pytest.fixture
def measured(tmp_path):
    source = tmp_path / "out" / "quality"
    (source / "pictures").mkdir(parents=True)
    (source / "all.json").write_text(json.dumps(RECORD))
    (source / "other.json").write_text('{"seconds": 3}')
    Image.new("RGB", (8, 8)).save(source / "pictures" / "auto.png")
    return source


def test_the_page_is_made_from_the_files_and_keeps_what_people_wrote(measured, tmp_path):
    page = tmp_path / "docs" / "quality.md"
    options = ["--from", str(measured), "--output", str(page)]
    result = CliRunner().invoke(app, options)
    assert result.exit_code == 0, result.output
    text = page.read_text()
    assert "**Shape edits fail in two ways**" in text
    assert "editfarm evaluate --json out/quality/all.json --store s" in text, "no path of a machine"
    assert "![auto](" not in text
    assert "](pictures/quality-auto.png)" in text
    assert "](pictures/quality-all.svg)" in text
    assert (tmp_path / "docs" / "pictures" / "quality-auto.png").is_file()
    ET.parse(tmp_path / "docs" / "pictures" / "quality-all.svg")
    assert text.count("arXiv:2310.01506), table") == 11
    assert "Not measured yet." in text, "EditInfinity is in no file"
    again = CliRunner().invoke(app, options)
    assert (again.exit_code, page.read_text()) == (0, text)


def test_nothing_measured_and_broken_files_are_errors(measured, tmp_path):
    for where, says in ((tmp_path / "none", "no folder"), (tmp_path, "no evaluations")):
        result = CliRunner().invoke(app, ["--from", str(where), "--output", str(tmp_path / "p.md")])
        assert (result.exit_code, says in result.output) == (2, True), result.output
    (measured / "bad.json").write_text("{")
    result = CliRunner().invoke(app, ["--from", str(measured), "--output", str(tmp_path / "p.md")])
    assert result.exit_code == 2
    assert "is not JSON" in result.output


def test_published_rows_say_whose_they_are():
    text = render([Record("all", RECORD)])
    assert "Published rows, not ours" in text
    assert all(row.source for row in PUBLISHED)
    styled = next(row for row in PUBLISHED if row.inversion == "StyleDiffusion")
    assert (styled.structure, styled.psnr, styled.clip_edited) == (11.65, 26.05, 21.72)


def test_the_graph_places_arms_by_seconds_and_quality():
    points = [
        Point("cheap & quick", 1.0, 0.2, 0.1, 0.3, is_method=False),
        Point("dear", 100.0, 0.8, 0.7, 0.9, is_method=True),
    ]
    root = ET.fromstring(draw_tradeoff(points))
    space = {"s": "http://www.w3.org/2000/svg"}
    cheap, dear = root.findall("s:circle", space)
    assert float(cheap.get("cx")) < float(dear.get("cx"))
    assert float(cheap.get("cy")) > float(dear.get("cy"))
    names = [text.text for text in root.findall("s:text", space)]
    assert {"cheap & quick", "dear"} <= set(names)
    assert ET.fromstring(draw_tradeoff([])).findall("s:circle", space) == []
