"""From settings to the parts of a replica, and to the one dispatcher."""

import httpx2

from farm.storage.opening import open_store
from farm.storage.store import check_writable
from farm.zoo.model_sets import open_model_set
from serve.batches import Batches
from serve.dispatcher import Dispatcher, DispatchOptions
from serve.doors import DispatcherDoor, EditFarm
from serve.edits import Edits
from serve.events import Listeners
from serve.gate import Gate
from serve.intake import Intake
from serve.keys import KeyRing
from serve.ledger import Ledger
from serve.metrics import Metrics
from serve.services import Services
from serve.settings import Settings
from serve.watching import Watcher
from serve.webhooks import HttpCourier


def open_ledger(settings: Settings) -> Ledger:
    """The records in the settings' store."""
    return Ledger(open_store(settings.store))


def open_intake(settings: Settings, ledger: Ledger) -> Intake:
    """Checks for the settings' model set.

    Raises:
        ModelSetError: there is no such set.
    """
    stores = {name: open_store(uri) for name, uri in settings.image_stores.items()}
    return Intake(ledger.store, open_model_set(settings.model_set), settings.limits, stores)


def open_gate(settings: Settings) -> Gate:
    """Who may enter.

    Raises:
        InvalidRequestError: the keys file cannot be read.
    """
    return Gate(None if settings.keys_file is None else KeyRing(settings.keys_file))


def open_services(settings: Settings, door: DispatcherDoor) -> Services:
    """Everything that a replica of the HTTP side works with.

    Raises:
        FarmError: something of it is not as the settings say.
    """
    ledger = open_ledger(settings)
    intake = open_intake(settings, ledger)
    metrics = Metrics()
    return Services(
        settings=settings,
        ledger=ledger,
        intake=intake,
        gate=open_gate(settings),
        edits=Edits(ledger, intake, door, log_prompts=settings.log_prompts),
        batches=Batches(ledger, intake, door),
        watcher=Watcher(ledger, door),
        door=door,
        metrics=metrics,
        listeners=Listeners(settings.limits.max_listeners, metrics.listeners),
    )


def open_dispatcher(settings: Settings, farm: EditFarm) -> Dispatcher:
    """The dispatcher, not yet started.

    Raises:
        StoreError: the store cannot be written, or ignores conditions.
        FarmError: something else is not as the settings say.
    """
    ledger = open_ledger(settings)
    check_writable(ledger.store)
    gate = open_gate(settings)
    return Dispatcher(
        ledger,
        farm,
        gate.limits_of,
        HttpCourier(ledger, gate.webhook_secret_of, httpx2.AsyncClient()),
        open_intake(settings, ledger),
        DispatchOptions(
            max_in_flight=settings.max_in_flight,
            max_queue=settings.max_queue,
            max_seconds=settings.max_seconds,
        ),
    )
