"""Who asks: what a backbone needs to know of a caller to be fair to all of them. No torch here."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Priority: TypeAlias = Literal["interactive", "batch"]


@dataclass(frozen=True)
class Sender:
    """Whose calls these are; it travels beside them and changes nothing of what they give.

    Attributes:
        tenant: on whose account the time goes; tenants that wait get equal shares of it.
        priority: "interactive" goes before "batch", which keeps a guaranteed share.
        caller: name of the edit; its calls can be cancelled by it. Empty: nobody will.
        attempt: how many steps that held these calls hung before; from 1 on each call is computed
            in a batch of its own, so that it harms nobody else.
        trace: context of the span that asks (see `actors.tracing`); empty: nobody traces.
    """

    tenant: str = "default"
    priority: Priority = "batch"
    caller: str = ""
    attempt: int = 0
    trace: str = ""


ANYBODY = Sender()
