"""A backbone that is ready has computed with each of its networks."""

from actors.backbone import Backbone
from actors.warming import warm_up_calls
from farm.backbones.host import OperationHost
from tests.tiny import tiny_networks, tiny_spec


async def test_every_network_answers_its_first_call_before_the_backbone_is_ready() -> None:
    seen: list[str] = []

    class Watched:
        def __init__(self, device: str) -> None:
            del device
            self._host = OperationHost(tiny_networks())

        def run_batch(self, calls):
            seen.extend(call.op for call in calls)
            return self._host.run_batch(calls)

        def __getattr__(self, name: str):
            return getattr(self._host, name)

    backbone = Backbone(Watched, "cpu", warm_up=warm_up_calls(tiny_spec()))
    assert backbone.health() > 0
    assert seen == ["clip.embed_tokens", "vae.encode", "vae.decode", "unet.noise"]


def test_a_set_without_a_unet_is_asked_for_none() -> None:
    spec = tiny_spec().model_copy(update={"text_to_image": False})
    assert [call.op for call in warm_up_calls(spec)] == [
        "clip.embed_tokens",
        "vae.encode",
        "vae.decode",
    ]
