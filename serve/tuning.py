"""How Serve's processes are set where no rendered deployment says so."""

import os

from cluster.settings import SERVE_LOOPS


def tune_serve() -> None:
    """Set what suits this application, before Ray starts; what an operator has set stays."""
    for name, value in SERVE_LOOPS.items():
        os.environ.setdefault(name, value)
