"""The form: picture, words, method, seed; and from what it holds to a wish."""

import base64
import binascii
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.blocks import Block
from gradio.components import Component
from gradio.data_classes import ImageData

from farm.requests import METHODS
from serve.studio.client import ApiError
from serve.studio.options import METHOD_TABS, MethodTab, Option, chosen, number
from serve.studio.panels import sample_buttons
from serve.studio.samples import samples
from serve.studio.wishes import Wish

ASSETS = Path(__file__).parent / "assets"

_MASK_START = "data:image/png;base64,"
_MOST_SEED = 2**32 - 1
_YES_NO = ("default", "yes", "no")


@dataclass
class Form:
    """Components of the form, and what reads them."""

    picture: gr.Image
    samples: gr.HTML
    painter: gr.HTML
    source: gr.Textbox
    target: gr.Textbox
    word: gr.Textbox
    tabs: gr.Tabs
    method: gr.State
    mask: gr.State
    seed: gr.Textbox
    options: dict[str, dict[str, Component]] = field(default_factory=dict[str, Any])
    further: dict[str, gr.Textbox] = field(default_factory=dict[str, gr.Textbox])

    @property
    def inputs(self) -> set[Component]:
        """Everything that a wish is made of."""
        named = [part for parts in self.options.values() for part in parts.values()]
        words: list[Component] = [self.picture, self.source, self.target, self.word]
        return {*words, self.method, self.mask, self.seed, *named, *self.further.values()}

    def wish(self, data: dict[Component, Any]) -> Wish:
        """What the visitor asks for.

        Raises:
            ApiError: something is missing, in words.
        """
        path = data[self.picture]
        if not path:
            raise ApiError("There is no picture yet: upload one, or pick a sample scene.")
        source, target = (str(data[part] or "").strip() for part in (self.source, self.target))
        if not source or not target:
            raise ApiError("Describe the picture as it is, and as it shall be.")
        method = str(data[self.method])
        return Wish(
            picture=Path(path).read_bytes(),
            source_prompt=source,
            target_prompt=target,
            word=str(data[self.word] or "").strip(),
            method=method,
            seed=int(number("Seed", str(data[self.seed] or 0), 0, _MOST_SEED, whole=True)),
            parameters=self._parameters(method, data),
            mask=mask_bytes(data[self.mask]),
        )

    def filled(self, request: dict[str, Any]) -> dict[Block, Any]:
        """The form as a record's request has it, all but the picture."""
        method = str(request.get("method", METHODS[0]))
        parameters = dict(request.get("parameters", {}))
        found: dict[Block, Any] = {
            self.source: request.get("source_prompt", ""),
            self.target: request.get("target_prompt", ""),
            self.word: request.get("target_word") or "",
            self.seed: str(request.get("seed", 0)),
            self.tabs: gr.Tabs(selected=method),
            self.method: method,
        }
        for name, component in self.options[method].items():
            found[component] = _shown(component, parameters.pop(name, None))
        found[self.further[method]] = json.dumps(parameters) if parameters else ""
        return found

    def _parameters(self, method: str, data: dict[Component, Any]) -> dict[str, Any]:
        tab = next(tab for tab in METHOD_TABS if tab.name == method)
        found: dict[str, Any] = {}
        for option in tab.options:
            value = chosen(option, data[self.options[method][option.name]])
            if value is not None:
                found[option.name] = value
        return found | _further(data[self.further[method]])


def build_form() -> Form:
    """Put the form where the layout stands now."""
    with gr.Group():
        picture = gr.Image(
            label="Picture",
            sources=["upload", "clipboard"],
            type="filepath",
            image_mode=None,
            height=230,
            elem_id="picture",
            buttons=[],
        )
        # the API judges the file; and of a subclass, Gradio would write a stub beside this file
        picture.preprocess = _path_of
    shown = gr.HTML(
        sample_buttons(samples()),
        js_on_load=script("choices.js"),
        elem_id="samples",
    )
    source = gr.Textbox(
        label="What it shows",
        info="Describe the picture as it is, with everything that matters.",
        placeholder="a photo of an orange ring in the night",
        lines=2,
        elem_id="source",
        max_length=1000,
    )
    target = gr.Textbox(
        label="What it shall show",
        info="The same words, changed where the picture is to change.",
        placeholder="a photo of a green ring in the night",
        lines=2,
        elem_id="target",
        max_length=1000,
    )
    word = gr.Textbox(
        label="Word that matters (optional)",
        info=METHOD_TABS[0].word,
        placeholder="green",
        elem_id="word",
        max_length=80,
    )
    method, mask = gr.State(METHODS[0]), gr.State("")
    options: dict[str, dict[str, Component]] = {}
    further: dict[str, gr.Textbox] = {}
    with gr.Tabs(selected=METHODS[0], overflow_behavior="wrap", elem_id="methods") as tabs:
        for tab in METHOD_TABS:
            options[tab.name], further[tab.name] = _method_tab(tab, method, word)
    with gr.Accordion("Paint where it may change (optional)", open=False, elem_id="mask"):
        painter = gr.HTML(
            painter_panel(None), js_on_load=script("painter.js"), elem_id="painter", padding=True
        )
    seed = gr.Textbox(
        "0",
        label="Seed",
        info="The same seed gives the same result.",
        max_length=10,
        elem_id="seed",
    )
    return Form(
        picture, shown, painter, source, target, word, tabs, method, mask, seed, options, further
    )


def painter_panel(url: str | None) -> str:
    """A canvas over the picture at this address."""
    if url is None:
        return '<p class="ef-numbers">Choose a picture first.</p>'
    return (
        '<div class="ef-painter"><div class="ef-canvas">'
        f'<img src="{url}" alt=""><canvas tabindex="0" role="img" '
        'aria-label="Mask. Arrows move the brush, space paints, delete rubs out, '
        'brackets set the size."></canvas></div>'
        '<p class="ef-tools"><label>Brush <input class="ef-brush" type="range" min="2" max="60" '
        'value="18"></label><label><input class="ef-rub" type="checkbox"> Rub out</label>'
        '<button type="button" class="ef-clear">Clear</button></p>'
        '<p class="ef-numbers ef-painted">nothing painted: anything may change</p></div>'
    )


def mask_bytes(data_url: str | None) -> bytes | None:
    """What the painter told.

    Raises:
        ApiError: it is no such thing.
    """
    if not data_url:
        return None
    try:
        return base64.b64decode(data_url.removeprefix(_MASK_START), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ApiError("The painted mask cannot be read: clear it and paint again.") from error


def script(name: str) -> str:
    """JavaScript of a panel."""
    return (ASSETS / name).read_text(encoding="utf-8")


def _method_tab(
    tab: MethodTab, method: gr.State, word: gr.Textbox
) -> tuple[dict[str, Component], gr.Textbox]:
    with gr.Tab(tab.title, id=tab.name) as shown:
        gr.HTML(f'<p class="ef-about">{tab.about}</p>')
        found: dict[str, Component] = {}
        with gr.Row(elem_classes="ef-options"):
            found |= {o.name: _field(o) for o in tab.options if not o.folded}
        with gr.Accordion("More options", open=False):
            with gr.Row(elem_classes="ef-options"):
                found |= {o.name: _field(o) for o in tab.options if o.folded}
            further = gr.Textbox(
                label="Further parameters",
                info="JSON, as in a manifest; the documentation of the method has them all.",
                placeholder='{"blend_grow": 1}',
                max_length=4000,
            )

    def select() -> tuple[str, Any]:
        return tab.name, gr.Textbox(info=tab.word)

    shown.select(
        select,
        outputs=[method, word],
        queue=False,
        show_progress="hidden",
        api_visibility="private",
    )
    return found, further


def _field(option: Option) -> Component:
    if option.kind in ("count", "number"):
        # an emptied gr.Number is a zero; a text can be empty
        return gr.Textbox(
            label=option.label,
            info=option.info,
            placeholder="default",
            max_length=20,
            min_width=130,
        )
    if option.kind == "text":
        return gr.Textbox(label=option.label, info=option.info, max_length=1000, min_width=130)
    choices = _YES_NO if option.kind == "switch" else ("default", *option.choices)
    return gr.Dropdown(
        list(choices),
        value="default",
        label=option.label,
        info=option.info,
        filterable=False,
        min_width=130,
    )


def _path_of(payload: ImageData | None) -> str | None:
    return None if payload is None else payload.path


def _shown(component: Component, value: Any) -> Any:
    """A parameter as its field shows it."""
    if isinstance(component, gr.Dropdown):
        return {None: "default", True: "yes", False: "no"}.get(value, value)
    return f"{value:g}" if isinstance(value, int | float) else str(value or "")


def _further(text: str | None) -> dict[str, Any]:
    if not (text or "").strip():
        return {}
    try:
        found = json.loads(text or "")
    except ValueError as error:
        raise ApiError(f"Further parameters are no JSON: {error}.") from error
    if not isinstance(found, dict):
        raise ApiError('Further parameters are a JSON object, such as {"blend_grow": 1}.')
    return found
