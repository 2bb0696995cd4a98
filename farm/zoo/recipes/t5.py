"""T5's encoder for the scenes world: text rows that tell shapes, colours and places apart.

Trained against the frozen pictures of the zoo's CLIP with its hard negatives, then frozen itself:
text that is trained together with a generator learns to say the same for all objects
(specs of the scenes world, docs/zoo.md).
"""

import random
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders
from tokenizers.models import Unigram
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Metaspace
from torch import Tensor, nn
from transformers import CLIPModel, T5Config, T5EncoderModel

from farm.backbones.infinity.networks import TEXT
from farm.backbones.infinity.tokenizer import END, TextTokenizer
from farm.zoo.recipes.clip import IMAGE_MEAN, IMAGE_STD, with_hard_negatives
from farm.zoo.scenes.captions import caption, varied_caption
from farm.zoo.scenes.edits import edit_truth, sample_edits
from farm.zoo.scenes.rendering import render
from farm.zoo.scenes.scenes import generator_for, sample_scenes
from farm.zoo.scenes.vocabulary import (
    BACKGROUNDS,
    COLOUR_NAMES,
    DEFAULT_TYPES,
    PATTERNS,
    SHAPES,
    SIZES,
)

WIDTH = 96
TEXT_ROWS = 96
"""Most rows of a text with its instruction and learned rows."""
INSTRUCTION = ", the language style of this prompt is"
"""What the learned prompt of EditInfinity follows; a tenth of the training captions have it."""

_PAD, _UNKNOWN = "<pad>", "<unk>"
_SPACE = "▁"
_WORDS = (
    *SHAPES,
    *COLOUR_NAMES,
    *PATTERNS,
    *SIZES,
    *BACKGROUNDS,
    *("a", "an", "and", "the", "of", "in", "on", "at", "with", "there", "is", "photo", "picture"),
    *("image", "background", "left", "right", "top", "bottom", "above", "below"),
    *("language", "style", "this", "prompt"),
)
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789,.;:!?'\"()-"
_HEAD, _HEAD_FILE = ("projection.", "scale"), "reader.safetensors"
"""What `evaluate` needs besides the encoder."""
_GROUP = 6
_INSTRUCTED = 0.1
_MAX_SCALE = 4.6


def word_tokenizer(words: tuple[str, ...]) -> Tokenizer:
    """A tokenizer of T5's kind: whole words where it knows them, letters elsewhere."""
    known = dict.fromkeys(words)
    # scores are logarithms of probabilities: one word beats its letters
    pieces = [(_PAD, 0.0), (END, 0.0), (_UNKNOWN, 0.0), (_SPACE, -8.0)]
    pieces += [(f"{_SPACE}{word}", -2.0) for word in known]
    pieces += [(letter, -10.0) for letter in _LETTERS]
    tokenizer = Tokenizer(Unigram(pieces, unk_id=2))
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in (_PAD, END, _UNKNOWN)])
    tokenizer.normalizer = Lowercase()
    tokenizer.pre_tokenizer = Metaspace(replacement=_SPACE, prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement=_SPACE, prepend_scheme="always")
    return tokenizer


def scenes_text_tokenizer() -> TextTokenizer:
    """The tokenizer of the scenes world's T5."""
    with TemporaryDirectory() as folder:
        word_tokenizer(_WORDS).save(str(Path(folder) / "tokenizer.json"))
        return TextTokenizer(Path(folder), TEXT_ROWS)


def build_t5(vocabulary: int, width: int = WIDTH, layers: int = 3) -> T5EncoderModel:
    """A tiny encoder with the gated feed-forward of flan-T5: 0.4 M parameters."""
    config = T5Config(
        vocab_size=vocabulary,
        d_model=width,
        d_kv=width // 4,
        d_ff=2 * width,
        num_layers=layers,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=1,
    )
    return T5EncoderModel(config)


def padded(
    tokenizer: TextTokenizer, texts: list[str]
) -> tuple[Int[Tensor, "texts tokens"], Bool[Tensor, "texts tokens"]]:
    """Ids of some texts filled up with padding, and which of them count."""
    encoded = [tokenizer.encode(text).ids for text in texts]
    longest = max(len(ids) for ids in encoded)
    ids = torch.zeros(len(texts), longest, dtype=torch.int64)
    for row, tokens in enumerate(encoded):
        ids[row, : len(tokens)] = torch.tensor(tokens)
    lengths = torch.tensor([len(tokens) for tokens in encoded])
    return ids, torch.arange(longest) < lengths[:, None]


class _Reader(nn.Module):
    """The encoder with what training needs: a pooled projection and a scale."""

    def __init__(self, encoder: T5EncoderModel, width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.projection = nn.Linear(encoder.config.d_model, width)
        self.scale = nn.Parameter(torch.tensor(2.66))

    def forward(
        self, ids: Int[Tensor, "texts tokens"], present: Bool[Tensor, "texts tokens"]
    ) -> tuple[Float[Tensor, "texts embed"], Float[Tensor, ""]]:
        rows = self.encoder(input_ids=ids, attention_mask=present.long()).last_hidden_state
        weight = present[:, :, None].to(rows)
        pooled = (rows * weight).sum(1) / weight.sum(1)
        return self.projection(pooled), self.scale.clamp(max=_MAX_SCALE).exp()


class T5Recipe:
    """Contrastive against pictures embedded by the finished CLIP.

    Args:
        start_from: a T5 folder to continue from.
        networks: where the finished CLIP is.
        held_out: pictures that are evaluated, and half as many edits of each kind.
    """

    name = TEXT

    def __init__(
        self,
        *,
        start_from: Path | None = None,
        networks: Path = Path("out/zoo/export"),
        held_out: int = 256,
    ) -> None:
        self.start_from, self.held_out = start_from, held_out
        self.tokenizer = scenes_text_tokenizer()
        self.clip = CLIPModel.from_pretrained(networks / "clip").float().eval()
        self.clip.requires_grad_(False)

    def build(self) -> nn.Module:
        with torch.random.fork_rng():
            torch.random.manual_seed(0)
            encoder = build_t5(_vocabulary())
            width = self.clip.config.projection_dim
            assert width is not None
            reader = _Reader(encoder, width)
        if self.start_from is not None:
            reader.encoder = T5EncoderModel.from_pretrained(self.start_from).float()
        return reader

    def loss(
        self, module: nn.Module, step: int, batch_size: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, float]]:
        del step
        base = sample_scenes(batch_size // _GROUP, generator, split="train", two_share=0.4)
        scenes = with_hard_negatives(base, generator)
        words = random.Random(int(torch.randint(2**31, (1,), generator=generator)))  # noqa: S311
        texts = [varied_caption(scenes, i, words)[0] for i in range(len(scenes))]
        texts = [instructed(text, words) for text in texts]
        image = self._pictures(render(scenes).images)
        text, scale = module(*padded(self.tokenizer, texts))
        logits = image @ F.normalize(text.float(), dim=-1).T * scale
        answers = torch.arange(len(logits))
        loss = (F.cross_entropy(logits, answers) + F.cross_entropy(logits.T, answers)) / 2
        return loss, {"accuracy": (logits.argmax(0) == answers).float().mean().item()}

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """Retrieval among held-out pictures, and whether the edited caption is preferred."""
        scenes = sample_scenes(self.held_out, generator_for("heldout", 81), split="heldout")
        texts = [caption(scenes, i) for i in range(self.held_out)]
        best = self._pictures(render(scenes).images) @ self._texts(module, texts).T
        answers = torch.arange(self.held_out)
        figures = {
            "image_to_text": (best.argmax(1) == answers).float().mean().item(),
            "text_to_image": (best.argmax(0) == answers).float().mean().item(),
        }
        for kind in DEFAULT_TYPES:
            edits = sample_edits(self.held_out // 2, 82, (kind,))
            truths = [edit_truth(e) for e in edits]
            after = self._pictures(torch.cat([t.target.images for t in truths]))
            new = self._texts(module, [e.target_prompt for e in edits])
            old = self._texts(module, [e.source_prompt for e in edits])
            prefers = (after * new).sum(1) > (after * old).sum(1)
            figures[f"prefers_{kind}"] = prefers.float().mean().item()
        return figures

    def export(self, module: nn.Module, folder: Path) -> None:
        assert isinstance(module, _Reader)
        module.encoder.half().save_pretrained(folder / self.name)
        word_tokenizer(_WORDS).save(str(folder / self.name / "tokenizer.json"))
        head = {n: t.half() for n, t in module.state_dict().items() if n.startswith(_HEAD)}
        save_file(head, folder / self.name / _HEAD_FILE)

    def load(self, folder: Path) -> nn.Module:
        module = self.build()
        assert isinstance(module, _Reader)
        head = {n: t.float() for n, t in load_file(folder / self.name / _HEAD_FILE).items()}
        module.load_state_dict(head, strict=False)
        module.encoder = T5EncoderModel.from_pretrained(folder / self.name).float()
        return module.eval()

    def _pictures(
        self, images: Float[Tensor, "pictures 3 height width"]
    ) -> Float[Tensor, "pictures embed"]:
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGE_MEAN, IMAGE_STD))
        with torch.no_grad():
            found: Any = self.clip.get_image_features(pixel_values=(images - mean) / std)
        return F.normalize(found.pooler_output.float(), dim=-1)

    def _texts(self, module: nn.Module, texts: list[str]) -> Float[Tensor, "texts embed"]:
        text, _ = module(*padded(self.tokenizer, texts))
        return F.normalize(text.float(), dim=-1)


def instructed(text: str, words: random.Random) -> str:
    """A caption as it is, or now and then with the instruction that learned prompts follow."""
    return text + INSTRUCTION if words.random() < _INSTRUCTED else text


def _vocabulary() -> int:
    return word_tokenizer(_WORDS).get_vocab_size()
