"""Which parameters of each method the page offers: the few that matter, and the rest folded."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from farm.requests import METHODS
from serve.studio.client import ApiError

Kind = Literal["count", "number", "choice", "switch", "text"]


@dataclass(frozen=True)
class Option:
    """One parameter; left empty, the model set's own value counts.

    Attributes:
        name: in the request.
        label: on the page.
        info: what it does.
        kind: how it is asked for.
        least: smallest number.
        most: largest number.
        choices: of a choice.
        folded: whether it is among those that few people need.
    """

    name: str
    label: str
    info: str
    kind: Kind = "number"
    least: float = 0
    most: float = 0
    choices: tuple[str, ...] = ()
    folded: bool = False


@dataclass(frozen=True)
class MethodTab:
    """A method as the page shows it."""

    name: str
    title: str
    about: str
    word: str
    """What the word field means to it."""
    options: tuple[Option, ...]


def _share(name: str, label: str, info: str, *, folded: bool = False) -> Option:
    return Option(name, label, info, "number", 0, 1, folded=folded)


def _count(name: str, label: str, info: str, most: int, *, folded: bool = False) -> Option:
    return Option(name, label, info, "count", 1, most, folded=folded)


_STYLE_DIFFUSION = MethodTab(
    "style_diffusion",
    "StyleDiffusion",
    "Learns how the model would have drawn this picture, then draws it with your words.",
    "The word of the new description that says what is new.",
    (
        _share("tau_s", "Keep the layout", "0 to 1: share of steps that keep the shapes."),
        _share("tau_c", "Keep the places", "0 to 1: share of steps that keep where words look."),
        _count("inner_steps", "Training steps", "More is closer to the picture, and slower.", 500),
        _count("num_steps", "Drawing steps", "Steps of the sampler.", 200),
        _share("tau_v", "Keep the look", "Share of steps with the learned values.", folded=True),
        Option(
            "guidance_scale", "Guidance", "How strongly words count.", "number", 1, 30, (), True
        ),
        Option(
            "learned",
            "What is learned",
            "Values are StyleDiffusion; the others are known alternatives.",
            "choice",
            choices=("values", "null_text", "text", "nothing"),
            folded=True,
        ),
        Option(
            "training",
            "Training",
            "exact is slowest and truest.",
            "choice",
            choices=("exact", "forced", "forced_polish"),
            folded=True,
        ),
        Option(
            "edit_type",
            "Words",
            "Replaced one for one, or added and dropped.",
            "choice",
            choices=("replace", "refine"),
            folded=True,
        ),
        Option("local_blend", "Local", "Change only where the words look.", "switch", folded=True),
        _share("blend_threshold", "Region threshold", "Higher is a smaller region.", folded=True),
        Option("paste_back", "Own pixels outside", "Keep them exactly.", "switch", folded=True),
        Option("restructure", "Another thing", "It gets another outline.", "switch", folded=True),
    ),
)

_LEARNABLE_REGIONS = MethodTab(
    "learnable_regions",
    "Learnable Regions",
    "Searches the box in which repainting fits your words best.",
    "The word of the new description that says what is new.",
    (
        _count("point_number", "Places", "Centres of boxes that are tried.", 64),
        _count("finalists", "Finalists", "Boxes that are drawn in full.", 64),
        _count("num_steps", "Drawing steps", "Steps of a full drawing.", 200),
        Option("guidance_scale", "Guidance", "How strongly words count.", "number", 1, 30),
        _count("preview_steps", "Sketch steps", "Steps of a trial drawing.", 200, folded=True),
        _count("epochs", "Epochs", "Of the training.", 500, folded=True),
        Option(
            "objective",
            "Objective",
            "expected is exact.",
            "choice",
            choices=("expected", "gumbel", "reinforce"),
            folded=True,
        ),
        Option(
            "sizes",
            "Sizes",
            "Who chooses each box's size.",
            "choice",
            choices=("trained", "untrained", "random", "argmin", "all"),
            folded=True,
        ),
        _share("grounding", "Follow the words", "Rather than what is salient.", folded=True),
        Option("draw_box", "Show all boxes", "As a further output.", "switch", folded=True),
    ),
)

_EDIT_INFINITY = MethodTab(
    "edit_infinity",
    "EditInfinity",
    "Fits an autoregressive model to the picture, then edits it scale by scale. "
    "Needs a model set that has an Infinity.",
    "The word of the old description that is to change.",
    (
        _count("train_textembedding_iter", "Prompt steps", "Training of the prompt.", 500),
        _count("train_lora_iter", "Adapter steps", "Training of the adapters.", 500),
        _share("threshold", "Region threshold", "Higher is a smaller region."),
        Option("guidance", "Guidance", "How strongly words count.", "number", 1, 30),
        _count("candidates", "Drawings", "The one that follows the words best is taken.", 64),
        Option(
            "structure_weight",
            "Keep the build",
            "In that choice; 0 where things may move and change their form.",
            "number",
            0,
            100,
            (),
            True,
        ),
        Option(
            "source_noise",
            "Draw by the source",
            "What the words leave as it was stays more so.",
            "switch",
            folded=True,
        ),
        Option("tau", "Temperature", "Of the draws.", "number", 0.01, 10, (), True),
        Option(
            "kernel",
            "Border",
            "How the source fades near the mask.",
            "choice",
            choices=("released", "paper"),
            folded=True,
        ),
        Option("negative_prompt", "Not this", "What to stay away from.", "text", folded=True),
        Option("paste_back", "Own pixels outside", "Keep them exactly.", "switch", folded=True),
        _count("lora_r", "Rank", "Of the adapters.", 64, folded=True),
    ),
)

_AUTO = MethodTab(
    "auto",
    "Auto",
    "Tries the methods and keeps whichever does it best, by figures that need no truth.",
    "The word of the new description that says what is new.",
    (
        Option(
            "effort",
            "Effort",
            "cheap tries each method quickly and edits with the best; full edits with all.",
            "choice",
            choices=("cheap", "full"),
        ),
        Option("text_weight", "Follow the words", "Weight.", "number", 0, 100, (), True),
        Option("background_weight", "Keep the rest", "Weight.", "number", 0, 100, (), True),
        Option("structure_weight", "Keep the structure", "Weight.", "number", 0, 100, (), True),
    ),
)

METHOD_TABS = (_STYLE_DIFFUSION, _LEARNABLE_REGIONS, _EDIT_INFINITY, _AUTO)
assert tuple(tab.name for tab in METHOD_TABS) == METHODS


def chosen(option: Option, value: Any) -> Any:
    """What goes into the request for what the page's field holds; None where it is left empty.

    Raises:
        ApiError: it is no such number.
    """
    text = str(value or "").strip()
    if text in {"", "default"}:
        return None
    match option.kind:
        case "count":
            return int(number(option.label, text, option.least, option.most, whole=True))
        case "switch":
            return text == "yes"
        case "number":
            return number(option.label, text, option.least, option.most)
        case "choice" | "text":
            return text


def number(label: str, text: str, least: float, most: float, *, whole: bool = False) -> float:
    """A number that somebody typed.

    Raises:
        ApiError: it is none, or out of its bounds, in words.
    """
    try:
        found = float(text.replace(",", "."))
    except ValueError:
        found = math.nan
    if not least <= found <= most or (whole and found != int(found)):
        kind = "a whole number" if whole else "a number"
        raise ApiError(f"{label}: {text!r:.40} is not {kind} from {least:g} to {most:g}.")
    return found
