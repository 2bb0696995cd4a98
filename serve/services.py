"""Everything that the routes work with."""

from dataclasses import dataclass

from serve.batches import Batches
from serve.doors import DispatcherDoor
from serve.edits import Edits
from serve.events import Listeners
from serve.gate import Gate
from serve.intake import Intake
from serve.ledger import Ledger
from serve.metrics import Metrics
from serve.settings import Settings
from serve.watching import Watcher


@dataclass(frozen=True)
class Services:
    """Of one replica."""

    settings: Settings
    ledger: Ledger
    intake: Intake
    gate: Gate
    edits: Edits
    batches: Batches
    watcher: Watcher
    door: DispatcherDoor
    metrics: Metrics
    listeners: Listeners
