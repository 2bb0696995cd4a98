"""Where everything lies in the store. No other file joins keys.

tenants/<tenant>/edits/<id>/       a target: what is committed once (farm.storage.commits)
tenants/<tenant>/stages/<digest>/  a target too, shared by all edits that need the stage
    attempts/<attempt>/<name>      what one run wrote, committed or not
    COMMIT.json                    names the one attempt that counts
    lease.json                     who works on it now (farm.storage.leases)
    checkpoints/<epoch>            how far the holder of that epoch got
tenants/<tenant>/inputs/<sha256>   images as they were handed in
tenants/<tenant>/jobs/<job>/<name> what a job of many edits says of itself: outcomes, report
tenants/<tenant>/quota.json        how much the tenant may keep (farm.runner.retention)
tenants/<tenant>/online/<kind>/<id>  what the HTTP door knows: records, their images, clients' keys
online/pending/<tenant>/<id>       accepted and not finished: what a restarted farm takes up again
"""

import re

from farm.storage.keys import InvalidKeyError, validate_key, validate_segment

_SHA256 = re.compile(r"[0-9a-f]{64}")
_EPOCH_DIGITS = 12  # so that the order of the keys is the order of the epochs


def edit_prefix(tenant: str, edit_id: str) -> str:
    return _join(_tenant(tenant), "edits", validate_segment(edit_id))


def edits_prefix(tenant: str) -> str:
    """For listing: ends in a slash."""
    return _join(_tenant(tenant), "edits") + "/"


def stage_prefix(tenant: str, digest: str) -> str:
    return _join(_tenant(tenant), "stages", validate_segment(digest))


def stages_prefix(tenant: str) -> str:
    """For listing: ends in a slash."""
    return _join(_tenant(tenant), "stages") + "/"


def input_key(tenant: str, sha256: str) -> str:
    if _SHA256.fullmatch(sha256) is None:
        raise InvalidKeyError(f"an input is named by its SHA-256 in hexadecimal, not {sha256!r}")
    return _join(_tenant(tenant), "inputs", sha256)


def job_file_key(tenant: str, job: str, name: str) -> str:
    """The file `name`, which may have folders, of a job."""
    return _join(_tenant(tenant), "jobs", validate_segment(job), name)


def quota_key(tenant: str) -> str:
    return _join(_tenant(tenant), "quota.json")


def tenant_prefix(tenant: str) -> str:
    """For listing all that a tenant keeps: ends in a slash."""
    return _tenant(tenant) + "/"


def tenants_prefix() -> str:
    """For listing all tenants: ends in a slash."""
    return "tenants/"


def inputs_prefix(tenant: str) -> str:
    """For listing: ends in a slash."""
    return _join(_tenant(tenant), "inputs") + "/"


def jobs_prefix(tenant: str) -> str:
    """For listing: ends in a slash."""
    return _join(_tenant(tenant), "jobs") + "/"


def online_key(tenant: str, kind: str, name: str) -> str:
    """Of the HTTP door; `kind` is a word of `serve.ledger`."""
    return _join(_tenant(tenant), "online", validate_segment(kind), validate_segment(name))


def online_prefix(tenant: str, kind: str) -> str:
    """For listing: ends in a slash."""
    return _join(_tenant(tenant), "online", validate_segment(kind)) + "/"


def pending_key(tenant: str, name: str) -> str:
    return _join("online", "pending", validate_segment(tenant), validate_segment(name))


def pending_prefix() -> str:
    """For listing, of all tenants: ends in a slash."""
    return "online/pending/"


def attempt_file_key(target: str, attempt: str, name: str) -> str:
    """The file `name`, which may have folders, of one attempt at a target."""
    return _join(target, "attempts", validate_segment(attempt), name)


def commit_key(target: str) -> str:
    return _join(target, "COMMIT.json")


def lease_key(target: str) -> str:
    return _join(target, "lease.json")


def checkpoint_key(target: str, epoch: int) -> str:
    return _join(target, "checkpoints", f"{epoch:0{_EPOCH_DIGITS}d}")


def checkpoints_prefix(target: str) -> str:
    """For listing: ends in a slash."""
    return _join(target, "checkpoints") + "/"


def _tenant(tenant: str) -> str:
    return _join("tenants", validate_segment(tenant))


def _join(*parts: str) -> str:
    return validate_key("/".join(parts))
