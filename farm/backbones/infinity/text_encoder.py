"""T5's encoder, frozen: token ids to one row per token, the end token's included (spec §2.2)."""

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import T5EncoderModel


class T5TextEncoder(nn.Module):
    """Ids to last hidden states.

    Texts are run at their true length; the released code fills them up to 512 first and throws
    those rows away.
    """

    def __init__(self, encoder: T5EncoderModel) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False).eval()

    @property
    def width(self) -> int:
        return int(self.encoder.config.d_model)

    @property
    def vocabulary(self) -> int:
        return int(self.encoder.config.vocab_size)

    def forward(
        self, ids: Int[Tensor, "batch tokens"], present: Bool[Tensor, "batch tokens"] | None = None
    ) -> Float[Tensor, "batch tokens embed"]:
        """Rows in single precision; `present` is False after a shorter text's end."""
        mask = None if present is None else present.long()
        return self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state.float()
