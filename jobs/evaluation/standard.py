"""What each method is compared with, unless other arms are asked for.

Simple ways to edit, the method as its released program has it, and the method without training.
"""

from collections.abc import Mapping

_UNLEARNED = (
    "training=null,inner_steps=null,forced_steps=null,polish_steps=null,attention_weight=null,"
    "value_form=null"
)
"""What is said of learned values is of no use to those that learn none."""

_RELEASED_EDITING = (
    "learning_rate=0.01,reference=true,paste_back=false,paste_threshold=0,shield_kept=false,tau_v=0.5,tau_c=0.6,"
    "tau_s=0.6,blend_threshold=0.3,blend_pool=3,blend_grow=0"
)
_UNTRAINED_INFINITY = (
    "train_textembedding=false,use_textembedding=false,use_concat_embedding=false,"
    "train_lora=false,use_lora=false"
)

STANDARD: Mapping[str, tuple[str, ...]] = {
    "style_diffusion": (
        f"ddim-p2p:learned=nothing,{_UNLEARNED}",
        f"direct-p2p:learned=direct,{_UNLEARNED}",
        f"null-text-p2p:learned=null_text,learning_rate=0.01,{_UNLEARNED}",
        "sdedit:method=sdedit",
        f"style_diffusion-released:{_RELEASED_EDITING}",
    ),
    "learnable_regions": (
        "learnable_regions-untrained:sizes=untrained",
        'learnable_regions-released:reference=true,template="{}",num_steps=20,guidance_scale=4',
    ),
    "edit_infinity": (
        f"edit_infinity-untrained:{_UNTRAINED_INFINITY}",
        "edit_infinity-released:reference=true",
    ),
}
"""Texts of arms (`jobs.evaluation.arms.parse_arm`) by method; their parameters are those of
docs/quality.md."""
