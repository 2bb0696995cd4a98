"""Pieces of the page as HTML; everything that comes from outside is escaped here."""

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from serve.studio.client import ApiError
from serve.studio.samples import Sample
from serve.views import EditView, JobView, Progress

ROOT = "/studio"
"""Where the page is; addresses of its files are absolute, as the page may be asked for without a
slash at its end."""

_STATES = {
    "queued": "waiting",
    "running": "running",
    "done": "done",
    "failed": "failed",
    "cancelled": "cancelled",
}
_OVERLAYS = (("mask.png", "Region"), ("attention.png", "Attention"))
_MOST_POINTS = 400


@dataclass
class Curve:
    """Losses of the stage that runs, thinned out evenly when they become many."""

    stage: str = ""
    points: list[tuple[int, float]] = field(default_factory=list[tuple[int, float]])

    def add(self, progress: Progress) -> None:
        """Note a step; a new stage begins a new curve if it has losses."""
        if progress.loss is None:
            return
        if progress.stage != self.stage:
            self.stage, self.points = progress.stage, []
        self.points.append((progress.step, progress.loss))
        if len(self.points) > _MOST_POINTS:
            self.points = self.points[::2]


def nothing_yet() -> str:
    """Where the result will be."""
    return (
        '<div class="ef-empty"><p>The edited picture appears here.</p>'
        "<p>Pick a sample or upload a picture, describe it as it is and as it shall be, and "
        "press <b>Edit</b>.</p></div>"
    )


def trouble(error: ApiError | str) -> str:
    """An error in words."""
    text = error.detail if isinstance(error, ApiError) else error
    head = '<div class="ef-said ef-trouble" role="alert"><b>That did not work.</b>'
    return f"{head} {_text(text)}</div>"


def progress_panel(view: EditView, curve: Curve, *, ready: bool = True) -> str:
    """How far an edit is, with its loss so far."""
    step = view.progress
    if step is None:
        waits = "Accepted; it starts as soon as there is room."
        if not ready:
            waits = "Accepted. The networks are still being loaded; it starts when they are there."
        words, bar = waits, '<progress class="ef-bar" aria-label="progress"></progress>'
    else:
        parts = [f"step {step.step} of {step.total}"]
        if step.loss is not None:
            parts.append(f"loss {step.loss:.4g}")
        if step.eta_seconds is not None:
            parts.append(f"about {_seconds(step.eta_seconds)} left in this stage")
        words = " · ".join(parts)
        bar = (
            f'<progress class="ef-bar" max="{step.total}" value="{step.step}" '
            'aria-label="progress"></progress>'
        )
    stage = "" if step is None else step.stage.rpartition(".")[2].replace("_", " ")
    title = _text(stage or _STATES[view.state])
    return (
        f'<section class="ef-said ef-progress" data-state="{view.state}">'
        f'<p class="ef-stagename" role="status">{title}</p>{bar}'
        f'<p class="ef-numbers">{_text(words)}</p>{_curve(curve)}</section>'
    )


def working(view: EditView, preview: bytes | None = None) -> str:
    """The picture while it is worked on.

    Args:
        view: of an edit that has not ended.
        preview: how it stands half-way, a JPEG; before there is one, the visitor's own is shown.
    """
    shown, said = _file(view.id, "image"), "your picture; training comes before drawing"
    words, kind = "the picture as it is", ""
    if preview is not None:  # within the page, so that no gap is seen between two of them
        encoded = base64.b64encode(preview).decode("ascii")
        shown, said = f"data:image/jpeg;base64,{encoded}", "half-way: what is there by now"
        words, kind = "the picture as it stands half-way", " ef-halfway"
    return (
        f'<figure class="ef-viewer ef-working{kind}"><div class="ef-stage">'
        f'<img src="{shown}" alt="{words}"><span class="ef-badge">{said}</span></div></figure>'
    )


def viewer(view: EditView, *, kept: bool = False) -> str:
    """Before and after with a slider, what may be laid over, and what to save.

    Args:
        view: of an edit that is done.
        kept: whether a painted mask is applied to the result.
    """
    after = _file(view.id, "kept.png" if kept else "edited.png")
    source, target = (_text(view.request.get(f"{kind}_prompt")) for kind in ("source", "target"))
    tints, buttons = "", ""
    for name, label in _OVERLAYS:
        if name in view.outputs:
            kind = name.partition(".")[0]
            tints += (
                f'<i class="ef-tint ef-{kind}" hidden '
                f"style=\"--map:url('{_file(view.id, name)}')\"></i>"
            )
            buttons += (
                f'<label><input type="checkbox" class="ef-show" value="{kind}"> {label}</label>'
            )
    saves = "".join(
        f'<a download="{view.id[:8]}-{_text(name)}" href="{_file(view.id, name)}">{_text(name)}</a>'
        for name in sorted(view.outputs)
    )
    return (
        '<figure class="ef-viewer"><div class="ef-stage">'
        f'<img class="ef-before" src="{_file(view.id, "image")}" alt="before: {source}">'
        f'<img class="ef-after" src="{after}" alt="after: {target}">'
        f'{tints}<span class="ef-line" aria-hidden="true"></span>'
        '<input class="ef-wipe" type="range" min="0" max="100" value="50" '
        'aria-label="where the picture before ends and the edited one begins">'
        '<span class="ef-badge ef-left">before</span><span class="ef-badge ef-right">after</span>'
        f'</div><div class="ef-overlays" role="group" aria-label="laid over">{buttons}</div>'
        f'<figcaption>{_facts(view)}</figcaption><p class="ef-saves">Save: {saves}</p></figure>'
    )


def ended_without(view: EditView) -> str:
    """Why there is no result."""
    if view.state == "cancelled":
        return '<div class="ef-said ef-note" role="status"><b>Cancelled.</b></div>'
    return trouble(view.error.detail if view.error else "the edit failed")


def sample_buttons(samples: Sequence[Sample]) -> str:
    """Scenes to begin with."""
    buttons = "".join(
        f'<button type="button" data-index="{number}" title="{_text(sample.source_prompt)}">'
        f'<img src="{sample.data_url}" alt="{_text(sample.source_prompt)}"></button>'
        for number, sample in enumerate(samples)
    )
    return (
        '<p class="ef-about">or begin with a scene:</p>'
        f'<div class="ef-samples" role="group" aria-label="sample scenes">{buttons}</div>'
    )


def history_grid(views: Sequence[EditView]) -> str:
    """Edits as buttons with their results."""
    if not views:
        return '<div class="ef-empty"><p>No edits yet.</p></div>'
    return '<div class="ef-grid">' + "".join(_card(view) for view in views) + "</div>"


def _card(view: EditView) -> str:
    picture = (
        f'<img loading="lazy" src="{_file(view.id, "edited.png")}" alt="">'
        if view.state == "done"
        else '<span class="ef-nopicture" aria-hidden="true">…</span>'
    )
    target = _text(view.request.get("target_prompt"))
    method = _text(str(view.request.get("method", "")).replace("_", " "))
    return (
        f'<button type="button" class="ef-card" data-id="{view.id}">{picture}'
        f'<span class="ef-chip ef-{view.state}">{_STATES[view.state]}</span>'
        f'<span class="ef-words">{target}</span><small>{method}</small></button>'
    )


def jobs_list(jobs: Sequence[JobView]) -> str:
    """Batches with how far they are."""
    if not jobs:
        return '<div class="ef-empty"><p>No batches yet.</p></div>'
    return '<div class="ef-jobs">' + "".join(_job(job) for job in jobs) + "</div>"


def _job(job: JobView) -> str:
    ended = sum(job.counts.get(state, 0) for state in ("done", "failed", "cancelled", "refused"))
    most = job.lines or max(sum(job.counts.values()), 1)
    counts = " · ".join(f"{number} {state}" for state, number in sorted(job.counts.items()))
    lines = f"{ended} of {job.lines}" if job.lines is not None else f"{ended} so far"
    wrong = "".join(
        f"<li>line {line}: {_text(why)}</li>" for line, why in list(job.refusals.items())[:3]
    )
    stop = (
        f'<button type="button" data-cancel="{job.id}">Cancel</button>'
        if job.state == "running"
        else ""
    )
    failure = f'<p class="ef-wrong">{_text(job.error.detail)}</p>' if job.error else ""
    return (
        f'<article class="ef-job" data-state="{_text(job.state)}"><header>'
        f"<b>{_text(job.manifest)}</b>"
        f'<span class="ef-chip ef-{_text(job.state)}">{_text(job.state)}</span></header>'
        f'<progress class="ef-bar" max="{most}" value="{min(ended, most)}" '
        f'aria-label="progress of {_text(job.manifest)}"></progress>'
        f'<p class="ef-numbers">{_text(lines)}{" · " if counts else ""}{_text(counts)}</p>'
        f'{failure}<ul class="ef-wrong">{wrong}</ul>'
        f'<p><button type="button" data-show="{job.id}">Show its edits</button> {stop}</p>'
        "</article>"
    )


def _facts(view: EditView) -> str:
    request = view.request
    took = ""
    if view.finished is not None and view.started is not None:
        took = f" · {_seconds(view.finished - view.started)}"
    if view.reused:
        took = " · was in the store"
    word = request.get("target_word")
    return (
        f"<b>{_text(request.get('target_prompt'))}</b><br>"
        f"{_text(str(request.get('method', 'style_diffusion')).replace('_', ' '))}"
        f" · seed {_text(request.get('seed', 0))}{took}"
        f"{' · word “' + _text(word) + '”' if word else ''}"
    )


def _curve(curve: Curve) -> str:
    """The losses as a line on a logarithmic scale; nothing before there are two."""
    points = [(step, loss) for step, loss in curve.points if loss > 0]
    if len(points) < 2:
        return ""
    width, height = 320.0, 90.0
    heights = _logs([loss for _, loss in points])
    first, last = points[0][0], points[-1][0]
    span = max(last - first, 1)
    line = " ".join(
        f"{(step - first) / span * width:.1f},{(1 - level) * (height - 6) + 3:.1f}"
        for (step, _), level in zip(points, heights, strict=True)
    )
    values = [loss for _, loss in points]
    return (
        f'<svg class="ef-curve" viewBox="0 0 {width:g} {height:g}" preserveAspectRatio="none" '
        f'role="img" aria-label="loss from {values[0]:.3g} to {values[-1]:.3g}">'
        f'<polyline points="{line}"/></svg>'
        f'<p class="ef-axis"><span>loss {max(values):.2g} to {min(values):.2g}, logarithmic</span>'
        f"<span>steps {first} to {last}</span></p>"
    )


def _logs(values: Sequence[float]) -> list[float]:
    """Where each lies between the smallest and the largest, on a logarithmic scale."""
    from_least = [math.log(value) for value in values]
    least, most = min(from_least), max(from_least)
    return [(value - least) / ((most - least) or 1.0) for value in from_least]


def _file(edit: str, name: str) -> str:
    return f"{ROOT}/files/{escape(edit)}/{escape(name)}"


def _seconds(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"


def _text(value: Any) -> str:
    """For HTML, and for Gradio's templates, which would evaluate braces and dollars."""
    escaped = escape("" if value is None else str(value))
    return escaped.replace("{", "&#123;").replace("}", "&#125;").replace("$", "&#36;")
