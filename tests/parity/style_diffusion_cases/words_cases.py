"""Words and tokens: positions, mappers, weights, windows."""

from typing import Any

import pytest
import torch

from farm.errors import InvalidPromptError
from farm.methods.style_diffusion.mappers import equalizer, refinement_map, replacement_map
from farm.methods.style_diffusion.windows import (
    cross_windows,
    self_active,
    value_active,
    window_of,
)
from farm.methods.style_diffusion.words import find_words, word_positions
from tests.parity.golden_set import GoldenSet


def _pairs(stored: GoldenSet) -> list[dict[str, Any]]:
    return list(stored.consumed.open("alignment.json").values())


def check_words(stored: GoldenSet) -> None:
    for pair in _pairs(stored):
        for side in ("source", "target"):
            tokens = stored.tokens[pair[side]]
            found = {word: find_words(tokens, word) for word in pair[side].split()}
            assert found == pair[f"{side}_word_tokens"]
            assert sum(len(p) for p in word_positions(tokens)) == len(tokens.pieces)


def check_replacement(stored: GoldenSet) -> None:
    for pair in _pairs(stored):
        source, target = (stored.tokens[pair[side]] for side in ("source", "target"))
        if "replace_error" in pair:
            with pytest.raises(InvalidPromptError, match="use the same number of words"):
                replacement_map(source, target, reference=True)
            continue
        size = len(source.ids)
        expected = torch.zeros(size, size)
        for row in pair["replace_identity_rows"]:
            expected[row, row] = 1
        for row, column, value in pair["replace_nonzero"]:
            expected[row, column] = value
        found = replacement_map(source, target, reference=True)
        torch.testing.assert_close(found.mapper, expected, rtol=1e-6, atol=0)  # 1/3 in float32
        assert torch.equal(found.alpha, torch.ones(size))


def check_refinement(stored: GoldenSet) -> None:
    for pair in _pairs(stored):
        source, target = (stored.tokens[pair[side]] for side in ("source", "target"))
        found = refinement_map(source, target, reference=True)
        assert found.alpha.tolist() == pair["refine_alpha"]
        for column, row in enumerate(pair["refine_index"]):
            expected = torch.zeros(len(source.ids))
            if pair["refine_alpha"][column]:
                expected[row] = 1
            assert torch.equal(found.mapper[:, column], expected), (pair["target"], column)


def check_equalizers(stored: GoldenSet) -> None:
    vectors = stored.consumed.open("p2p.safetensors")
    for case in stored.consumed.open("p2p.json")["controllers"]:
        if case["eq"] is not None:
            weights = zip(*case["eq"], strict=True)
            found = equalizer(stored.tokens[case["prompts"][1]], weights)
            assert torch.equal(found, vectors[f"{case['name']}.equalizer"])


def check_windows(stored: GoldenSet) -> None:
    for row in stored.consumed.open("windows.json").values():
        steps, tau = row["steps"], row["tau"]
        table = cross_windows(steps, 1, (0.0, tau))
        assert int(table.sum()) == row["cross_steps"], row
        assert sum(self_active(n, steps, (0.0, tau)) for n in range(steps)) == row["self_steps"]
        assert sum(value_active(n, steps, tau) for n in range(steps)) == row["value_steps"]


def check_word_windows(stored: GoldenSet) -> None:
    about = stored.consumed.open("p2p.json")
    case = about["word_alpha"]
    target = stored.tokens[case["prompts"][1]]
    windows = {
        word: window_of(tuple(w) if isinstance(w, list) else w) for word, w in case["steps"].items()
    }
    default = windows.pop("default_", (0.0, 1.0))
    exceptions = [(find_words(target, word), window) for word, window in windows.items()]
    found = cross_windows(about["steps"], len(target.ids), default, exceptions)
    expected = stored.consumed.open("p2p.safetensors")["word_alpha"][:, 0].float()
    assert torch.equal(found, expected)
