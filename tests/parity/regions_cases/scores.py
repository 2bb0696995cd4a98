"""What CLIP says of the results: embeddings, losses, random views, the final choice."""

import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from farm.backbones.scorer import ImageFeatures
from farm.losses.clip import clip_loss, directional_loss
from farm.losses.structure import self_similarity, structure_loss
from farm.methods.learnable_regions.config import SelectionConfig, reference
from farm.methods.learnable_regions.selection import choose, final_scores
from tests.parity.regions_cases.common import ABSOLUTE, checks, close
from tests.parity.regions_set import GoldenSet
from tests.parity.released_views import apply_trace, released_trace


@checks("text_tokens|text_embeddings")
def texts(golden: GoldenSet, array: str) -> None:
    with torch.no_grad():
        found = golden.scorer.embed_text(golden.array("text_tokens"))
    close(found, golden.array("text_embeddings"))


@checks("result_u8|emb_noaug_res_(official|unit)_(aa|noaa)")
def results(golden: GoldenSet, array: str, scale: str | None, mode: str | None) -> None:
    if scale is None or mode is None:  # the pictures themselves: any of their embeddings
        array, scale, mode = "emb_noaug_res_unit_aa", "unit", "aa"
    close(features_of(golden, scale, mode).embeds, golden.array(array))


@checks("emb_noaug_src_(aa|noaa)")
def sources(golden: GoldenSet, array: str, mode: str) -> None:
    close(source_of(golden, mode).embeds, golden.array(array))


@checks("selfsim_src_antialias")
def source_similarity(golden: GoldenSet, array: str) -> None:
    close(self_similarity(source_of(golden, "aa").before_last[0]), golden.array(array))


@checks("selfsim_res0_corner_(official|unit)_(aa|noaa)")
def result_similarity(golden: GoldenSet, array: str, scale: str, mode: str) -> None:
    expected = golden.array(array)
    found = self_similarity(features_of(golden, scale, mode).before_last[0])
    close(found[: len(expected), : len(expected)], expected)


def features_of(golden: GoldenSet, scale: str, mode: str) -> ImageFeatures:
    """CLIP's features of the results; "official" leaves them at 0 to 255 (Q6)."""
    factor = 255.0 if scale == "official" else 1.0
    with torch.no_grad():
        return golden.scorer(golden.scorer.resized(factor * golden.results, antialias=mode == "aa"))


def source_of(golden: GoldenSet, mode: str) -> ImageFeatures:
    with torch.no_grad():
        return golden.scorer(golden.scorer.resized(golden.images[:1], antialias=mode == "aa"))


@pytest.mark.parametrize("scale", ["official", "unit"])
@pytest.mark.parametrize("antialias", [True, False])
def test_losses_without_views(golden: GoldenSet, scale: str, antialias: bool) -> None:
    values = golden.values["losses"][f"antialias={antialias}|scale={scale}"]
    mode = "aa" if antialias else "noaa"
    found, source = features_of(golden, scale, mode), source_of(golden, mode)
    each = structure_loss(found.before_last, source.before_last[0])
    target, caption = golden.array("text_embeddings")
    clip = clip_loss(found.embeds[:, None], target)
    directional = directional_loss(found.embeds[:, None], source.embeds, target - caption)
    approx = {"abs": ABSOLUTE, "rel": 0}
    assert each.tolist() == pytest.approx(values["structure_each"], **approx)
    assert each.mean().item() == pytest.approx(values["structure"], **approx)
    assert clip.mean().item() == pytest.approx(values["clip_noaug"], **approx)
    assert directional.mean().item() == pytest.approx(values["dir_noaug"], **approx)


@checks("emb_16views_res0_unit_aa")
def views(golden: GoldenSet, array: str) -> None:
    (trace,) = golden.values["trace"].values()
    pictures = apply_trace(golden.results[:1], trace)
    with torch.no_grad():
        found = golden.scorer(pictures).embeds
    close(found, golden.array(array))
    target = golden.array("text_embeddings")[0]
    expected = golden.values["losses"]["clip_16views_res0_unit"]
    assert clip_loss(found, target).item() == pytest.approx(expected, abs=ABSOLUTE)


@pytest.mark.parametrize("scale", ["official", "unit"])
def test_losses_under_the_published_run_s_own_views(golden: GoldenSet, scale: str) -> None:
    """All random numbers follow from the stored seed, as long as this torch draws as that one did.

    The program draws one number for its choice of texts before each of the two losses, then a
    result's views one result after the other; for the direction the source's come before each
    result's.
    """
    values = golden.values["losses"][f"full_get_loss|antialias=True|scale={scale}"]
    factor = 255.0 if scale == "official" else 1.0  # Q6
    generator = torch.Generator().manual_seed(values["seed"])
    target, caption = golden.array("text_embeddings")
    results = (factor * golden.results).split(1)
    torch.rand(1, generator=generator)
    clip = [clip_loss(drawn_views(golden, image, generator), target) for image in results]
    torch.rand(1, generator=generator)
    directional: list[Tensor] = []
    for image in results:
        before = drawn_views(golden, golden.images[:1], generator)
        after = drawn_views(golden, image, generator)
        directional.append(directional_loss(after, before, target - caption))
    source = source_of(golden, "aa").before_last[0]
    structure = structure_loss(features_of(golden, scale, "aa").before_last, source)
    found = [torch.stack(clip).mean(), torch.stack(directional).mean(), structure.mean()]
    expected = [values["clip"], values["directional"], values["structure"]]
    assert [one.item() for one in found] == pytest.approx(expected, abs=ABSOLUTE)
    assert sum(found).item() == pytest.approx(values["total"], abs=3 * ABSOLUTE)


def drawn_views(golden: GoldenSet, image: Tensor, generator: torch.Generator) -> Tensor:
    config = reference().analysis
    height, width = image.shape[-2:]
    trace = released_trace(height, width, config.num_views, golden.scorer.size, generator)
    with torch.no_grad():
        return golden.scorer(apply_trace(image, trace)).embeds


def test_the_stored_trace_follows_from_its_seed(golden: GoldenSet) -> None:
    ((name, trace),) = golden.values["trace"].items()
    seed = re.search(r"seed(\d+)", name)
    assert seed is not None
    count = len(golden.array("emb_16views_res0_unit_aa"))
    height, width = golden.results.shape[-2:]
    generator = torch.Generator().manual_seed(int(seed[1]))
    drawn = released_trace(height, width, count, golden.scorer.size, generator)
    assert drawn == trace


@checks(r"sel(\d+)_(img|src|txt)")
def selections(golden: GoldenSet, array: str, number: str, kind: str) -> None:
    del array, kind  # all three make one case
    case = golden.values["selection"][int(number)]
    image, source, text = (golden.array(f"sel{number}_{k}") for k in ("img", "src", "txt"))
    config = SelectionConfig(
        test_alpha=case["alpha"], test_beta=case["beta"], rule=reference().selection.rule
    )
    near, like = F.cosine_similarity(image, text), F.cosine_similarity(image, source)
    scores = final_scores(near, like, config)
    assert scores.tolist() == pytest.approx(case["score"], abs=ABSOLUTE)
    assert choose(near, like, config) == case["chosen"]
    assert (int(scores.argmax()) != case["chosen"]) == case["top3_rule_changed_choice"]
