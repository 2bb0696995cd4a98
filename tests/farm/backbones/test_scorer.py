import pytest
import torch
import torch.nn.functional as F

from farm.backbones.scorer import Scorer, _open_layer
from tests.tiny import TOKENS, tiny_clip, tiny_tokenizer
from tests.tiny_regions import picture


@pytest.fixture(scope="module")
def scorer():
    return Scorer(tiny_clip())


@pytest.fixture
def images():
    return torch.stack([picture(seed=1), picture(seed=2)])


def test_embeddings_and_tokens_are_transformers(scorer, images):
    with torch.no_grad():
        found = scorer(images)
        pixels = (images - scorer.mean) / scorer.std
        model = scorer.clip
        states = model.vision_model(pixels, output_hidden_states=True)
        expected = model.visual_projection(states.pooler_output)
    torch.testing.assert_close(found.embeds, expected)
    torch.testing.assert_close(found.last, states.last_hidden_state)
    torch.testing.assert_close(found.before_last, states.hidden_states[-2])


def test_texts_are_transformers(scorer):
    tokenizer = tiny_tokenizer()
    ids = torch.tensor([tokenizer.encode(p).ids for p in ("a red cat", "one dog on the ball")])
    assert ids.shape == (2, TOKENS)
    with torch.no_grad():
        output = scorer.clip(input_ids=ids, pixel_values=torch.zeros(1, 3, 16, 16))
        found = F.normalize(scorer.embed_text(ids), dim=-1)
    torch.testing.assert_close(found, output.text_embeds)


def test_pictures_are_resized_without_aliasing(scorer):
    stripes = (torch.arange(128) % 2).float().expand(1, 3, 128, 128)
    assert scorer.resized(stripes).std() < 0.05
    assert scorer.resized(stripes, antialias=False).std() < 1e-6  # samples fall between stripes
    ramp = torch.linspace(0, 1, 128).expand(1, 3, 128, 128)
    assert scorer.resized(ramp).shape == (1, 3, 16, 16)
    small = picture()[None]
    assert scorer.resized(small) is small


def test_an_opened_layer_is_the_layer(scorer):
    layer = scorer.clip.vision_model.encoder.layers[0]
    tokens = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found, maps = _open_layer(layer, tokens)
        torch.testing.assert_close(found, layer(tokens, None), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(maps.sum(-1), torch.ones(2, 2, 5))


def test_relevance_of_one_layer_is_gradient_times_attention(scorer, images):
    """With one layer the rule is (∇A ⊙ A)⁺ averaged over heads; ∇A by finite differences."""
    direction = torch.randn(2, 16, generator=torch.Generator().manual_seed(3))
    found = scorer.relevance(images, direction)
    assert found.shape == (2, 2, 2)
    vision = scorer.clip.vision_model
    layer = vision.encoder.layers[0]
    with torch.no_grad():
        tokens = scorer._embedded(images)
        _, maps = _open_layer(layer, tokens)
        expected = torch.zeros(2, 2, 2)
        step = 1e-2
        for place in range(4):
            heads = torch.zeros(2)
            for head in range(2):
                ends = []
                for sign in (1, -1):
                    moved = maps.clone()
                    moved[:, head, 0, 1 + place] += sign * step
                    ends.append(cosine_with(scorer, layer, tokens, moved, direction))
                gradient = (ends[0] - ends[1]) / (2 * step)
                heads += (gradient * maps[:, head, 0, 1 + place]).clamp(min=0)
            expected[:, place // 2, place % 2] = heads / 2
    assert found.min() >= 0
    assert found.max() > 0
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-2)  # central differences


def cosine_with(scorer, layer, tokens, maps, direction):
    attention = layer.self_attn
    value = attention.v_proj(layer.layer_norm1(tokens)).unflatten(-1, (2, -1)).transpose(1, 2)
    mixed = attention.out_proj((maps @ value).transpose(1, 2).flatten(2))
    after = tokens + mixed
    after = after + layer.mlp(layer.layer_norm2(after))
    return F.cosine_similarity(scorer._projected(after), direction, dim=-1)


def test_no_picture_of_a_batch_touches_another(scorer, images):
    direction = torch.randn(2, 16, generator=torch.Generator().manual_seed(3))
    both = scorer.relevance(images, direction)
    alone = scorer.relevance(images[1:], direction[1:])
    torch.testing.assert_close(both[1:], alone, atol=1e-6, rtol=1e-5)


def test_it_works_where_gradients_are_off_and_leaves_no_trace(scorer, images):
    direction = torch.ones(2, 16)
    with torch.no_grad():
        scorer.relevance(images, direction)
    assert all(p.grad is None and not p.requires_grad for p in scorer.parameters())
