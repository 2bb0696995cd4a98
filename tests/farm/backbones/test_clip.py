import torch
import torch.nn.functional as F
from transformers import CLIPImageProcessor

from farm.backbones.clip import ImageEncoder, TextEncoder
from tests.tiny import tiny_clip, tiny_tokenizer


def picture(size: int) -> torch.Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_text_embeddings_are_the_towers_last_hidden_state() -> None:
    clip, tokenizer = tiny_clip(), tiny_tokenizer()
    ids = torch.tensor([tokenizer.encode(p).ids for p in ("a red cat", "a plain circle")])
    expected = clip.eval().text_model(input_ids=ids).last_hidden_state
    torch.testing.assert_close(TextEncoder(clip.text_model)(ids), expected)


def test_the_class_token_is_the_towers_pooled_output() -> None:
    """transformers norms the class token alone; all tokens go through the same norm here."""
    clip = tiny_clip().eval()
    encoder = ImageEncoder(clip.vision_model)
    tokens = encoder(picture(16))
    tower = clip.vision_model(pixel_values=encoder.pixels(picture(16)))
    assert tokens.shape == (2, 5, 16)
    torch.testing.assert_close(tokens[:, 0], tower.pooler_output)
    rest = F.layer_norm(
        tower.last_hidden_state[:, 1:],
        (16,),
        clip.vision_model.post_layernorm.weight,
        clip.vision_model.post_layernorm.bias,
    )
    torch.testing.assert_close(tokens[:, 1:], rest)


def test_normalisation_is_transformers_own() -> None:
    processor = CLIPImageProcessor(do_resize=False, do_center_crop=False, do_rescale=False)
    expected = processor(list(picture(16)), return_tensors="pt")["pixel_values"]
    found = ImageEncoder(tiny_clip().vision_model).pixels(picture(16))
    torch.testing.assert_close(found, expected)


def test_other_sizes_are_resized_without_antialiasing() -> None:
    """On a linear ramp bicubic interpolation is exact away from the border."""
    ramp = torch.linspace(0, 1, 48).expand(1, 3, 48, 48)
    encoder = ImageEncoder(tiny_clip().vision_model)
    found = encoder.pixels(ramp) * encoder.std + encoder.mean
    centres = (torch.arange(16) + 0.5) * 3 - 0.5
    torch.testing.assert_close(
        found[..., 1:-1], (centres[1:-1] / 47).expand(1, 3, 16, 14), rtol=1e-5, atol=1e-6
    )
    # every third pixel is hit exactly, so single bright pixels between them leave no trace
    dots = torch.zeros(1, 3, 48, 48)
    dots[..., 0::3] = 1
    unsmoothed = encoder.pixels(dots) * encoder.std + encoder.mean
    assert unsmoothed[..., 1:-1].abs().max() < 1e-6


def test_towers_are_frozen() -> None:
    clip = tiny_clip().train()
    text, image = TextEncoder(clip.text_model), ImageEncoder(clip.vision_model)
    for tower in (text, image):
        assert not any(p.requires_grad for p in tower.parameters())
        assert not tower.tower.training
