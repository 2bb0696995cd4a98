import pytest
import torch
from transformers import AutoTokenizer, CLIPProcessor

from farm.metrics.clip_score import folder_tokenizer
from farm.metrics.stand_ins import model_set_networks
from farm.zoo.weights import SCENES_FOLDER
from tests.farm.metrics.networks import picture

TEXTS = ["a red circle on sand", "a blue striped star on grass"]


@pytest.fixture(scope="module")
def scorer():
    return model_set_networks(SCENES_FOLDER, "scenes").clip


def test_is_the_librarys_own_logits_over_their_scale(scorer):
    """torchmetrics' clip_score does not run with transformers 5."""
    tokenizer = AutoTokenizer.from_pretrained(SCENES_FOLDER / "tokenizer", local_files_only=True)
    processor = CLIPProcessor(scorer._processor, tokenizer)
    pixels = (picture(2, 3, 96, 80) * 255).round().to(torch.uint8)
    given = processor(text=TEXTS, images=list(pixels), return_tensors="pt", padding=True)
    with torch.no_grad():
        logits = scorer.model(**given).logits_per_image
    expected = 100 * logits.diagonal() / scorer.model.logit_scale.exp()
    found = scorer(pixels.float() / 255, TEXTS)
    assert found.tolist() == pytest.approx(expected.clamp_min(0).tolist(), abs=1e-3)  # float32


def test_each_picture_goes_with_its_own_text_and_nothing_is_below_zero(scorer):
    images = picture(2, 3, 64, 64)
    both, swapped = scorer(images, TEXTS), scorer(images, TEXTS[::-1])
    assert both.tolist() == pytest.approx(scorer(images.flip(0), TEXTS[::-1]).flip(0).tolist())
    assert both.tolist() != pytest.approx(swapped.tolist())
    assert (both >= 0).all()
    assert (both <= 100).all()


def test_long_texts_are_cut_to_the_models_length(scorer):
    tokenize = folder_tokenizer(SCENES_FOLDER / "tokenizer", scorer.model)
    ids = tokenize(["red " * 100, "red"])
    assert ids.shape == (2, 32)
    assert ids[0, -1] == ids[1, -1]  # both end in the end token
