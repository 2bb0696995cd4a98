"""What Ray Serve deploys.

    serve run serve.app:app                              # 127.0.0.1:8000, scenes, out/store
    serve run serve.app:app store=/data/store keys_file=/etc/editfarm/keys.json
    serve deploy serve/config.yaml                       # into a running cluster

Arguments are the fields of `serve.settings.Settings`. The backbones take some ten seconds to load;
`/readyz` says when. `studio` is the page for people, an application of its own under `/studio`.
"""

from typing import Any

from serve.deployment import build
from serve.settings import Settings
from serve.studio.deployment import StudioSettings, build_studio


def app(args: Settings) -> Any:
    """The application, from the arguments of the command or the config file."""
    return build(args)


def studio(args: StudioSettings) -> Any:
    """The studio, beside the application above."""
    return build_studio(args)
