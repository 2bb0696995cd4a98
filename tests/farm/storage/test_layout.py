import pytest

from farm.storage import layout
from farm.storage.keys import InvalidKeyError

SHA = "0123456789abcdef" * 4


def test_the_contract():
    edit = layout.edit_prefix("acme", "e1")
    stage = layout.stage_prefix("acme", "d1")
    assert edit == "tenants/acme/edits/e1"
    assert stage == "tenants/acme/stages/d1"
    assert layout.edits_prefix("acme") == "tenants/acme/edits/"
    assert layout.stages_prefix("acme") == "tenants/acme/stages/"
    assert layout.input_key("acme", SHA) == f"tenants/acme/inputs/{SHA}"
    assert layout.commit_key(edit) == "tenants/acme/edits/e1/COMMIT.json"
    assert (
        layout.attempt_file_key(edit, "u1", "boxes/0.json")
        == "tenants/acme/edits/e1/attempts/u1/boxes/0.json"
    )
    assert layout.jobs_prefix("acme") == "tenants/acme/jobs/"
    assert layout.job_file_key("acme", "j1", "truth/0") == "tenants/acme/jobs/j1/truth/0"
    assert layout.inputs_prefix("acme") == "tenants/acme/inputs/"
    assert layout.tenant_prefix("acme") == "tenants/acme/"
    assert layout.quota_key("acme") == "tenants/acme/quota.json"
    assert layout.online_key("acme", "keys", "k1") == "tenants/acme/online/keys/k1"
    assert layout.online_prefix("acme", "keys") == "tenants/acme/online/keys/"
    assert layout.pending_key("acme", "e1") == "online/pending/acme/e1"
    assert layout.pending_prefix() == "online/pending/"
    assert layout.lease_key(stage) == "tenants/acme/stages/d1/lease.json"
    assert layout.checkpoint_key(stage, 7).startswith(layout.checkpoints_prefix(stage))


def test_checkpoints_sort_by_epoch():
    keys = [layout.checkpoint_key("s", epoch) for epoch in (1, 9, 10, 99, 100)]
    assert keys == sorted(keys)


@pytest.mark.parametrize("bad", ["", "..", "a/b", "a\n", ".x"])
def test_names_from_outside_cannot_leave_their_place(bad):
    for build in (layout.edit_prefix, layout.stage_prefix):
        with pytest.raises(InvalidKeyError):
            build(bad, "x")
        with pytest.raises(InvalidKeyError):
            build("t", bad)
    with pytest.raises(InvalidKeyError):
        layout.attempt_file_key("t", bad, "x")
    with pytest.raises(InvalidKeyError):
        layout.attempt_file_key("t", "u", "../x")


@pytest.mark.parametrize("bad", ["", SHA[:-1], SHA.upper(), SHA + "\n", "../" + SHA])
def test_inputs_are_named_by_digest(bad):
    with pytest.raises(InvalidKeyError, match="SHA-256"):
        layout.input_key("acme", bad)
