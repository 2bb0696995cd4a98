"""KubeRay's documents against its CRDs, and the policies against the pods they are for."""

import copy
import json
import shutil
import subprocess
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import (
    _derive_autoscaling_config_from_ray_cr as derive_autoscaling_config,
)
from ray.serve.schema import ServeDeploySchema

from cluster.nodes import NODES, TRAINER_GIB
from cluster.rendering.targets import render
from cluster.settings import Settings
from farm.requests import parse_request
from jobs import edit_many, model_cache
from jobs.cli import JOBS
from jobs.cluster import SERVE_CONFIG, serve_config
from tests.cluster.strict import part_errors, ray_errors

ROOT = Path(__file__).parents[2] / "cluster" / "kuberay"
FILES = render("kuberay", serve_config=serve_config())
POD = ("spec", "headGroupSpec", "template")
TOPLEVEL = {"apiVersion", "kind", "metadata", "spec"}


def documents(path: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(FILES[f"kuberay/{path}"]))


def one(path: str) -> dict[str, Any]:
    (found,) = documents(path)
    return found


RAY_FILES = ("cluster/raycluster.yaml", "job/rayjob.yaml", "service/rayservice.yaml")


def cluster_of(document: dict[str, Any]) -> dict[str, Any]:
    spec = document["spec"]
    return spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec


def pod_templates(document: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = cluster_of(document)
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"] for group in groups]


@pytest.mark.parametrize("path", RAY_FILES)
def test_documents_pass_the_crds_with_unknown_fields_refused(path):
    assert ray_errors(one(path)) == []


@pytest.mark.parametrize(
    ("path", "where", "typo"),
    [
        ("cluster/raycluster.yaml", (), "enableInTreeAutoscalling"),
        ("cluster/raycluster.yaml", ("autoscalerOptions",), "idleTimeoutSecond"),
        ("cluster/raycluster.yaml", ("workerGroupSpecs", 2), "maxReplica"),
        ("cluster/raycluster.yaml", ("workerGroupSpecs", 0, "template", "spec"), "toleration"),
        (
            "cluster/raycluster.yaml",
            ("headGroupSpec", "template", "spec", "containers", 0, "readinessProbe"),
            "failureTreshold",
        ),
        ("job/rayjob.yaml", ("deletionStrategy", "deletionRules", 0), "polcy"),
        ("service/rayservice.yaml", (), "serveConfigV3"),
        (
            "service/rayservice.yaml",
            ("rayClusterConfig", "gcsFaultToleranceOptions"),
            "redisAdress",
        ),
    ],
)
def test_planted_typos_are_caught(path, where, typo):
    document = one(path)
    place = document["spec"]
    for step in where:
        place = place[step]
    place[typo] = 1
    assert any(typo in error for error in ray_errors(document))


def test_a_value_of_the_wrong_kind_is_caught():
    document = one("cluster/raycluster.yaml")
    document["spec"]["autoscalerOptions"]["version"] = "v3"
    document["spec"]["workerGroupSpecs"][0]["maxReplicas"] = "8"
    assert len(ray_errors(document)) == 2


@pytest.mark.parametrize("path", RAY_FILES)
def test_rays_own_translation_gives_the_tables_shapes(path):
    document = copy.deepcopy(one(path))
    cluster = {"metadata": document["metadata"], "spec": cluster_of(document)}
    types = derive_autoscaling_config(cluster)["available_node_types"]
    assert types["headgroup"]["resources"]["CPU"] == 0
    for kind in NODES.workers:
        row = types[kind.name]
        shape = {name: row["resources"].get(name, 0) for name in ("CPU", "GPU")}
        assert shape == {"CPU": kind.ray_cpus, "GPU": kind.gpus}
        assert (row["min_workers"], row["max_workers"]) == (kind.min_nodes, kind.max_nodes)
        assert row["labels"].items() >= kind.labels.items()
        assert row["idle_timeout_s"] == kind.idle_seconds
        assert row["priority"] == kind.priority


@pytest.mark.parametrize("path", RAY_FILES)
def test_every_pod_keeps_the_restricted_standard(path):
    for template in pod_templates(one(path)):
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
        for container in (*spec.get("initContainers", []), *spec["containers"]):
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]
        for volume in spec["volumes"]:
            assert "hostPath" not in volume


@pytest.mark.parametrize("path", RAY_FILES)
def test_mounts_have_volumes_and_volumes_are_mounted(path):
    for template in pod_templates(one(path)):
        spec = template["spec"]
        volumes = {volume["name"] for volume in spec["volumes"]}
        mounts = {
            mount["name"]
            for container in (*spec.get("initContainers", []), *spec["containers"])
            for mount in container["volumeMounts"]
        }
        assert mounts == volumes


def test_a_full_trainers_pod_stays_below_its_memory():
    groups = cluster_of(one("cluster/raycluster.yaml"))["workerGroupSpecs"]
    for kind, group in zip(NODES.workers, groups, strict=True):
        pod = group["template"]["spec"]
        limit = int(pod["containers"][0]["resources"]["limits"]["memory"].removesuffix("Gi"))
        shared = next(volume["emptyDir"] for volume in pod["volumes"] if volume["name"] == "shm")
        size = int(shared["sizeLimit"].removesuffix("Gi"))  # counts as the pod's memory too
        assert size >= 0.3 * limit
        if kind.pool == "trainers":
            assert kind.trainers * TRAINER_GIB + size <= limit


@pytest.mark.parametrize("path", RAY_FILES)
def test_a_pod_has_time_for_its_drain(path):
    for template in pod_templates(one(path))[1:]:
        spec = template["spec"]
        command = spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
        seconds = int(command[command.index("--seconds") + 1])
        assert spec["terminationGracePeriodSeconds"] > seconds


@pytest.mark.parametrize("path", RAY_FILES)
def test_secrets_are_named_and_never_written(path):
    cluster = cluster_of(one(path))
    assert cluster["authOptions"] == {"mode": "token", "secretName": "editfarm-auth"}
    text = FILES[f"kuberay/{path}"]
    assert "AWS_SECRET_ACCESS_KEY" not in text
    assert "value: token" in text


def test_a_jobs_remains_go_step_by_step_after_success_and_failure():
    rules = one("job/rayjob.yaml")["spec"]["deletionStrategy"]["deletionRules"]
    for status in ("SUCCEEDED", "FAILED"):
        steps = [rule for rule in rules if rule["condition"]["jobStatus"] == status]
        assert [rule["policy"] for rule in steps] == [
            "DeleteWorkers",
            "DeleteCluster",
            "DeleteSelf",
        ]
        times = [rule["condition"]["ttlSeconds"] for rule in steps]
        assert times == sorted(times)
    # the CRD's own rules, which are in CEL: one condition a rule, and no older form beside it
    assert all(len(rule["condition"]) == 2 for rule in rules)
    assert "shutdownAfterJobFinishes" not in one("job/rayjob.yaml")["spec"]


def parses(app: Any, arguments: list[str]) -> bool:
    """Whether a command takes these arguments; it is not run."""
    typer.main.get_command(app).make_context("command", arguments)
    return True


def test_commands_in_documents_are_commands_that_there_are():
    words = one("job/rayjob.yaml")["spec"]["entrypoint"].split()
    assert words[:3] == ["python", "-m", "jobs.edit_many"]
    assert parses(edit_many.app, words[3:])
    head, *workers = pod_templates(one("job/rayjob.yaml"))
    for template in (head, *workers):
        for init in template["spec"].get("initContainers", []):
            assert init["command"] == ["python", "-m", "jobs.model_cache"]
            assert parses(model_cache.app, init["args"])
    for template in workers:
        pod = template["spec"]
        stop = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
        assert stop[0] == "editfarm"
        assert parses(import_module(JOBS[stop[1]].module).app, stop[2:])


def mount_of(container: dict[str, Any], path: str) -> dict[str, Any]:
    (mount,) = [mount for mount in container["volumeMounts"] if mount["mountPath"] == path]
    return mount


@pytest.mark.parametrize("path", RAY_FILES)
def test_every_pod_reads_the_model_cache_and_the_head_fills_it(path):
    """A job's entrypoint runs on the head, Serve's replicas on any node; no GPU need be there."""
    (claim,) = documents("base/model_cache.yaml")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    head, *workers = pod_templates(one(path))
    filled = [head]
    for kind, template in zip(NODES.workers, workers, strict=True):
        filled += [template] if kind.gpus else []
    for template in (head, *workers):
        spec = template["spec"]
        (volume,) = [volume for volume in spec["volumes"] if volume["name"] == "models"]
        assert volume["persistentVolumeClaim"] == {"claimName": claim["metadata"]["name"]}
        assert mount_of(spec["containers"][0], "/models")["readOnly"] is True
        assert ("initContainers" in spec) == (template in filled)
    for template in filled:
        (init,) = template["spec"]["initContainers"]
        assert "readOnly" not in mount_of(init, "/models")
        # its source may be in the store's bucket
        assert init["envFrom"] == template["spec"]["containers"][0]["envFrom"]


def test_the_model_cache_may_be_made_of_released_checkpoints_in_a_bucket():
    mine = Settings(model_source="sd15+regions", model_mirror="s3://models/hub")
    files = render("kuberay", serve_config=serve_config(), settings=mine)
    pods = pod_templates(yaml.safe_load(files["kuberay/job/rayjob.yaml"]))
    steps = [init for pod in pods for init in pod["spec"].get("initContainers", [])]
    assert steps
    for init in steps:
        assert init["args"] == ["sd15+regions", "--to", "/models", "--mirror", "s3://models/hub"]
        assert parses(model_cache.app, init["args"])


def test_the_example_manifest_is_a_manifest():
    for line in FILES["kuberay/job/edits.jsonl"].splitlines():
        assert parse_request(json.loads(line)).target_word == "green"


def test_both_sides_of_haproxy_are_switched_on():
    for template in pod_templates(one("service/rayservice.yaml")):
        values = {row["name"]: row["value"] for row in template["spec"]["containers"][0]["env"]}
        assert values["RAY_SERVE_ENABLE_HA_PROXY"] == "1"


def unknown_keys(given: Any, parsed: Any, path: str = "") -> list[str]:
    """Keys that Serve's schema, which allows unknown ones, did not take over."""
    if isinstance(given, dict) and isinstance(parsed, dict):
        found = [f"{path}/{key}" for key in given if key not in parsed]
        for key in given.keys() & parsed.keys():
            if key not in FREE:
                found += unknown_keys(given[key], parsed[key], f"{path}/{key}")
        return found
    if isinstance(given, list) and isinstance(parsed, list):
        return [
            key
            for index, (one_given, one_parsed) in enumerate(zip(given, parsed, strict=True))
            for key in unknown_keys(one_given, one_parsed, f"{path}/{index}")
        ]
    return []


FREE = {"args", "user_config", "ray_actor_options", "runtime_env", "logging_config"}
"""Parts of Serve's configuration that are ours to fill."""


def parsed(config: dict[str, Any]) -> dict[str, Any]:
    return json.loads(ServeDeploySchema.model_validate(config).model_dump_json(warnings="none"))


@pytest.mark.skipif(not SERVE_CONFIG.is_file(), reason="this copy has no serve/config.yaml")
def test_the_serve_config_inside_passes_serves_schema_and_holds_no_unknown_key():
    text = one("service/rayservice.yaml")["spec"]["serveConfigV2"]
    config = yaml.safe_load(text)
    assert unknown_keys(config, parsed(config)) == []


def test_the_check_for_unknown_keys_sees_them_where_serve_does_not():
    config = {
        "applications": [
            {"name": "a", "import_path": "a:b", "deploymentz": [], "deployments": [{"name": "c"}]}
        ],
        "http_options": {"prot": 1},
    }
    assert set(unknown_keys(config, parsed(config))) == {
        "/applications/0/deploymentz",
        "/http_options/prot",
    }


def test_kubernetes_own_documents_have_the_parts_that_the_crds_know():
    (claim,) = documents("base/model_cache.yaml")
    volumes = (*POD, "spec", "volumes", "[]", "ephemeral", "volumeClaimTemplate", "spec")
    assert part_errors("RayCluster", volumes, claim["spec"]) == []
    rules = ("spec", "networkPolicy", "head")
    for policy in documents("base/network.yaml"):
        spec = policy["spec"]
        assert spec.keys() <= {"podSelector", "policyTypes", "ingress", "egress"}
        for name in ("ingress", "egress"):
            if name in spec:
                assert part_errors("RayCluster", (*rules, f"{name}Rules"), spec[name]) == []
    stateful, service = documents("service/redis.yaml")
    assert part_errors("RayCluster", POD, stateful["spec"]["template"]) == []
    assert service["spec"]["selector"].items() <= (
        stateful["spec"]["template"]["metadata"]["labels"].items()
    )


def test_part_checks_catch_typos_too():
    rule = [{"form": [{"podSelector": {}}]}]
    assert part_errors("RayCluster", ("spec", "networkPolicy", "head", "ingressRules"), rule)


def test_policies_select_the_farms_pods():
    labels = {}
    for path in RAY_FILES:
        for template in pod_templates(one(path)):
            labels = template["metadata"]["labels"]
            for policy in documents("base/network.yaml"):
                wanted = policy["spec"]["podSelector"]["matchLabels"]
                assert wanted.items() <= labels.items()
    budget = one("base/disruption.yaml")["spec"]["selector"]["matchLabels"]
    # KubeRay itself labels the head's pod
    assert budget.items() <= {**labels, "ray.io/node-type": "head"}.items()
    monitor = one("monitoring/monitor.yaml")["spec"]
    assert monitor["selector"]["matchLabels"].items() <= labels.items()


def test_everything_is_closed_but_what_a_policy_opens():
    closed, *others = [policy["spec"] for policy in documents("base/network.yaml")]
    assert closed["policyTypes"] == ["Ingress", "Egress"]
    assert not closed.keys() & {"ingress", "egress"}
    sources = [
        source for spec in others for rule in spec.get("ingress", []) for source in rule["from"]
    ]
    assert {} not in sources
    assert all("ipBlock" not in source for source in sources)


def test_priorities_and_accounts_that_pods_name_exist():
    classes = {document["metadata"]["name"] for document in documents("base/priorities.yaml")}
    account = one("base/account.yaml")["metadata"]["name"]
    for path in RAY_FILES:
        for template in pod_templates(one(path)):
            assert template["spec"]["priorityClassName"] in classes
            assert template["spec"]["serviceAccountName"] == account


def test_kustomizations_name_files_that_are_there():
    for path in FILES:
        if path.endswith("kustomization.yaml"):
            folder = (ROOT.parent / path).parent
            document = yaml.safe_load(FILES[path])
            generated = [
                file for made in document.get("configMapGenerator", []) for file in made["files"]
            ]
            for resource in (*document["resources"], *generated):
                assert (folder / resource).exists(), (path, resource)


def patched(overlay: str) -> list[dict[str, Any]]:
    """The overlay's resources with its patches: replacements by JSON pointer alone."""
    kustomization = one(f"overlays/{overlay}/kustomization.yaml")
    found: list[dict[str, Any]] = []
    for resource in kustomization["resources"]:
        folder = resource.removeprefix("../../")
        for file in one(f"{folder}/kustomization.yaml")["resources"]:
            found += documents(f"{folder}/{file}")
    for patch in kustomization["patches"]:
        (target,) = [
            document
            for document in found
            if (document["kind"], document["metadata"]["name"])
            == (patch["target"]["kind"], patch["target"]["name"])
        ]
        for change in yaml.safe_load(patch["patch"]):
            assert change["op"] == "replace"
            *steps, last = change["path"].strip("/").split("/")
            place = target
            for step in steps:
                place = place[int(step)] if isinstance(place, list) else place[step]
            assert last in place
            place[last] = change["value"]
    return found


@pytest.mark.parametrize("overlay", ["dev", "prod"])
def test_overlays_stay_valid_and_do_what_they_say(overlay):
    found = patched(overlay)
    (ray_document,) = [document for document in found if document["apiVersion"] == "ray.io/v1"]
    assert ray_errors(ray_document) == []
    groups = {group["groupName"]: group for group in cluster_of(ray_document)["workerGroupSpecs"]}
    if overlay == "dev":
        assert all(group["maxReplicas"] == 1 for group in groups.values())
    else:
        assert groups["gpu-on-demand"]["minReplicas"] == 1
        assert groups["gpu-spot"]["minReplicas"] == 0


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl for its kustomize")
@pytest.mark.parametrize("overlay", ["dev", "prod"])
def test_kustomize_builds_the_same(overlay):
    built = subprocess.run(
        ["kubectl", "kustomize", str(ROOT / "overlays" / overlay)],
        capture_output=True,
        check=True,
        timeout=30,
    )
    by_name = {
        (document["kind"], document["metadata"]["name"]): document
        for document in yaml.safe_load_all(built.stdout)
    }
    for document in patched(overlay):
        assert document.keys() - TOPLEVEL <= {
            "value",
            "globalDefault",
            "description",
            "automountServiceAccountToken",
        }
        assert by_name[document["kind"], document["metadata"]["name"]] == document
