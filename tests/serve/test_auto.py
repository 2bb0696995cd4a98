"""The choice of a method over HTTP: a method like the others, and its reasons are an output."""

import json

SETTINGS = {"style_diffusion": {"num_steps": 2, "inner_steps": 1}}


async def test_the_farm_chooses_and_says_what_it_chose(farm):
    ended = await farm.done(method="auto", parameters=json.dumps({"settings": SETTINGS}))
    assert ended["state"] == "done"
    response = await farm.client.get(ended["outputs"]["result.json"])
    assert response.headers["content-type"].startswith("application/json")
    told = response.json()
    assert told["chosen"] == "style_diffusion"
    assert set(told["refused"]) == {"learnable_regions", "edit_infinity"}
    # asked by its name, the edit is there
    named = await farm.done(parameters=json.dumps(SETTINGS["style_diffusion"]))
    assert (named["edit_id"], named["reused"]) == (told["edit_id"], True)


async def test_what_no_method_can_do_is_refused_at_once(farm):
    response = await farm.submit(
        method="auto", parameters=json.dumps({"methods": ["learnable_regions"]})
    )
    assert response.status_code == 422
    assert "has no method for this edit" in response.json()["detail"]
