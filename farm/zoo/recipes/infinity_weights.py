"""First weights of an Infinity that is trained from scratch."""

import torch
from torch import nn

from farm.backbones.infinity.blocks import Block
from farm.backbones.infinity.transformer import Infinity

_TEXT_STD = 0.5
_HEAD = 0.1


def initialise(infinity: Infinity, generator: torch.Generator) -> None:
    """Draw all weights from `generator`, in the order of their names.

    Matrices have a variance of 1/in, those that end a branch less by the number of branches, so
    that the sum of all branches stays near one. Adaptive norms start as plain ones.
    """
    with torch.no_grad():
        for module in infinity.modules():
            if isinstance(module, nn.Linear):
                std = module.in_features**-0.5
                module.weight.normal_(0, std, generator=generator)
                for name, parameter in module.named_parameters():
                    if name == "bias":
                        parameter.zero_()
        infinity.cfg_uncond.normal_(0, _TEXT_STD, generator=generator)
        infinity.pos_start.normal_(0, 0.02, generator=generator)
        infinity.lvl_embed.weight.normal_(0, 0.2, generator=generator)
        pool = infinity.text_proj_for_sos.get_submodule("ca").get_parameter("mat_q")
        pool.normal_(0, 1, generator=generator)
        branches = (3 * infinity.config.depth) ** -0.5
        for block in infinity.blocks:
            assert isinstance(block, Block)
            for last in (block.sa.proj, block.ca.proj, block.ffn.fc2):
                last.weight.mul_(branches)
            block.ada_gss.zero_()
            block.ada_gss[:, :, :2] = 1  # the two gammas
        for adaptive in (infinity.shared_ada_lin, infinity.head_nm.get_submodule("ada_lin")):
            adaptive.get_submodule("1").get_parameter("weight").mul_(_HEAD)
        infinity.head.weight.mul_(_HEAD)
