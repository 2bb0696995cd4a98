"""The page's layout, and which handler answers what."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from serve.studio import panels
from serve.studio.form import ASSETS, Form, build_form, script
from serve.studio.handlers import Handlers, Results
from serve.studio.lists import Lists
from serve.studio.sessions import Sessions

STYLE = (ASSETS / "studio.css").read_text(encoding="utf-8")
# names of fonts that every system has: nothing is fetched from elsewhere
THEME = gr.themes.Base(
    primary_hue="teal",
    neutral_hue="stone",
    radius_size="md",
    font=("system-ui", "sans-serif"),
    font_mono=("ui-monospace", "monospace"),
).set(  # darker than Gradio's own: white on it, and it on white, can be read
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_hover="*primary_800",
    color_accent="*primary_700",
    block_info_text_color="*neutral_600",
    block_info_text_color_dark="*neutral_300",
    body_text_color_subdued="*neutral_600",
    body_text_color_subdued_dark="*neutral_300",
)
_JOB_SECONDS = 2.0
_KEPT_FILES = (3600, 12 * 3600)  # uploads: looked at hourly, removed after half a day
_QUIET: dict[str, Any] = {
    "show_progress": "hidden",
    "concurrency_limit": None,
    "api_visibility": "private",
}


def build_page(sessions: Sessions) -> gr.Blocks:
    """The page; each visitor's state is their own."""
    with gr.Blocks(
        title="edit farm studio",
        analytics_enabled=False,
        fill_width=True,
        delete_cache=_KEPT_FILES,
    ) as page:
        gr.HTML(_head(with_keys=sessions.with_keys), js_on_load=script("head.js"), elem_id="head")
        with gr.Tabs(selected="edit", elem_id="places") as places:
            with gr.Tab("Edit", id="edit") as editing, gr.Row(elem_id="workshop"):
                with gr.Column(scale=4, min_width=300):
                    form = build_form()
                with gr.Column(scale=6, min_width=300, elem_id="outcome"):
                    results = _results(places)
            history = _history()
            batches = _batches()
        handlers, lists = Handlers(sessions, form, results), Lists(sessions)
        _wire_form(form, results, handlers)
        _wire_history(history, results, form, handlers, lists)
        _wire_batches(batches, history, results, lists)
        for tab in (editing, history.tab, batches.tab):  # the clock runs where it is looked at
            _set_clock(tab, batches.clock, runs=tab is batches.tab)
    return page


def _head(*, with_keys: bool) -> str:
    leave = (
        f'<form method="post" action="{panels.ROOT}/logout"><button>Sign out</button></form>'
        if with_keys
        else ""
    )
    return (
        '<header class="ef-head"><h1>Edit farm <span>studio</span></h1>'
        f'<button type="button" class="ef-theme" aria-label="light or dark">◐</button>{leave}'
        "</header>"
    )


def _results(places: gr.Tabs) -> Results:
    with gr.Row(elem_id="actions"):
        edit = gr.Button("Edit", variant="primary", elem_id="edit", min_width=120)
        cancel = gr.Button("Cancel", interactive=False, elem_id="cancel", min_width=120)
    status = gr.HTML("", elem_id="status")
    picture = gr.HTML(
        panels.nothing_yet(), js_on_load=script("viewer.js"), elem_id="result", padding=False
    )
    again = gr.Button(
        "Use these settings again", visible=False, size="sm", elem_id="again", min_width=120
    )
    with gr.Accordion("Copy as command, curl or Python", open=False, elem_id="copies"):
        with gr.Tab("curl"):
            curl = _code("shell", "curl")
        with gr.Tab("Python"):
            python = _code("python", "python")
        with gr.Tab("Command"):
            command = _code("shell", "command")
    current = gr.State("")
    return Results(status, picture, curl, python, command, edit, cancel, again, current, places)


def _code(language: Any, name: str) -> gr.Code:
    return gr.Code(
        "",
        language=language,
        interactive=False,
        show_label=False,
        lines=3,
        wrap_lines=True,
        show_line_numbers=False,
        elem_id=name,
        buttons=["copy"],
    )


@dataclass(frozen=True)
class _History:
    """The place of all edits."""

    tab: gr.Tab
    grid: gr.HTML
    older: gr.Button
    cursor: gr.State
    job: gr.State

    @property
    def shown(self) -> list[Any]:
        """What a page of edits changes."""
        return [self.grid, self.cursor, self.older, self.job]


@dataclass(frozen=True)
class _Batches:
    """The place of jobs."""

    tab: gr.Tab
    manifest: gr.Textbox
    most: gr.Number
    start: gr.Button
    wrong: gr.HTML
    jobs: gr.HTML
    clock: gr.Timer


def _history() -> _History:
    with gr.Tab("History", id="history") as tab:
        grid = gr.HTML("", js_on_load=script("choices.js"), elem_id="history")
        older = gr.Button("Older", visible=False, size="sm", elem_id="older")
        cursor, job = gr.State(""), gr.State("")
    return _History(tab, grid, older, cursor, job)


def _batches() -> _Batches:
    with gr.Tab("Batch", id="batch") as tab:
        with gr.Row(elem_id="newbatch"):
            manifest = gr.Textbox(
                label="Manifest",
                info="A JSONL file in one of the farm's stores; each line is an edit.",
                placeholder="photos://edits.jsonl",
                elem_id="manifest",
                scale=4,
                min_width=240,
                max_length=1024,
            )
            most = gr.Number(
                8,
                label="At once",
                info="Edits that run at a time.",
                precision=0,
                minimum=1,
                maximum=64,
                scale=1,
                min_width=120,
            )
        start = gr.Button("Start batch", variant="primary", elem_id="startbatch")
        wrong = gr.HTML("", elem_id="batchstatus")
        jobs = gr.HTML("", js_on_load=script("choices.js"), elem_id="jobs")
        clock = gr.Timer(_JOB_SECONDS, active=False)
    return _Batches(tab, manifest, most, start, wrong, jobs, clock)


def _wire_form(form: Form, results: Results, handlers: Handlers) -> None:
    words = [form.picture, form.source, form.target, form.word]
    form.samples.select(handlers.sample, outputs=words, **_QUIET)
    form.picture.change(handlers.new_picture, form.picture, [form.painter, form.mask], **_QUIET)
    form.painter.apply(handlers.paint, outputs=form.mask, **_QUIET)
    gr.on(
        [results.edit.click, form.target.submit, form.word.submit],
        handlers.run,
        inputs=form.inputs,
        outputs=results.all,
        **_QUIET,
    )
    results.cancel.click(handlers.cancel, results.current, results.cancel, **_QUIET)


def _wire_history(
    history: _History, results: Results, form: Form, handlers: Handlers, lists: Lists
) -> None:
    history.tab.select(lists.newest, outputs=history.shown, **_QUIET)
    history.older.click(lists.history, [history.cursor, history.job], history.shown, **_QUIET)
    history.grid.select(handlers.open, outputs=results.all, **_QUIET)
    outputs = [*form.inputs - {form.mask}, form.tabs, results.places, results.status]
    results.again.click(handlers.again, results.current, outputs, **_QUIET)


def _wire_batches(batches: _Batches, history: _History, results: Results, lists: Lists) -> None:
    jobs, clock = batches.jobs, batches.clock
    batches.tab.select(lists.jobs, outputs=jobs, **_QUIET)
    clock.tick(lists.jobs, outputs=jobs, **_QUIET)
    batches.start.click(
        lists.start_job, [batches.manifest, batches.most], [batches.wrong, jobs], **_QUIET
    )
    jobs.delete(lists.cancel_job, outputs=jobs, **_QUIET)
    jobs.select(lists.of_job, outputs=[*history.shown, results.places], **_QUIET)


def _set_clock(tab: gr.Tab, clock: gr.Timer, *, runs: bool) -> None:
    tab.select(lambda: gr.Timer(active=runs), outputs=clock, **_QUIET)
