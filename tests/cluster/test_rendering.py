"""Committed files, and what Ray's own validation says of the launcher's."""

import copy
import json
import shlex
from pathlib import Path

import jsonschema
import pytest
import ray
import typer
import yaml
from pydantic import ValidationError
from ray._private.label_utils import validate_node_label_syntax
from ray.autoscaler._private.util import prepare_config, validate_config
from typer.testing import CliRunner

from cluster.nodes import NODES, TRAINER_GIB, NodeTable
from cluster.rendering.targets import TARGETS, render, render_all
from cluster.settings import CUDA_MAJOR, GPU_DRIVER, SETTINGS, Settings
from cluster.table import TABLE
from jobs import model_cache
from jobs.cluster import Target, app, serve_config

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
LAUNCHERS = ("aws", "gcp", "onprem")


def launcher(target: str) -> dict:
    return yaml.safe_load(render(target)[f"{target}.yaml"])


def schema_errors(config: dict) -> list[str]:
    return [error.message for error in jsonschema.Draft7Validator(SCHEMA).iter_errors(config)]


def test_committed_files_are_what_the_tables_render():
    for path, text in render_all(serve_config()).items():
        committed = ROOT / "cluster" / path
        assert committed.is_file(), f"{path} is missing: run `editfarm cluster render`"
        assert committed.read_text(encoding="utf-8") == text, (
            f"{path} differs from its table: run `editfarm cluster render`"
        )


def test_nothing_else_lies_among_the_rendered_files():
    rendered = render_all(serve_config()).keys()
    for folder in ("kuberay", "monitoring"):
        found = (ROOT / "cluster" / folder).rglob("*")
        paths = {str(f.relative_to(ROOT / "cluster")) for f in found if f.is_file()}
        assert paths <= rendered


@pytest.mark.parametrize("target", LAUNCHERS)
def test_launcher_files_pass_rays_schema_and_preparation(target):
    config = launcher(target)
    assert schema_errors(config) == []
    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    assert prepared["cluster_name"] == "editfarm"
    for start in (*prepared["head_start_ray_commands"], *prepared["worker_start_ray_commands"]):
        assert "\n" not in start


@pytest.mark.parametrize("target", ["aws", "gcp"])
def test_prepared_node_types_have_the_tables_shapes_and_limits(target):
    prepared = prepare_config(launcher(target))
    types = prepared["available_node_types"]
    assert types.keys() == {kind.name for kind in NODES.kinds}
    for kind in NODES.workers:
        row = types[kind.name]
        assert row["resources"] == kind.resources
        assert (row["min_workers"], row["max_workers"]) == (kind.min_nodes, kind.max_nodes)
        assert row["idle_timeout_s"] == kind.idle_seconds
        validate_node_label_syntax(row["labels"])
    assert types["head"]["resources"]["CPU"] == 0
    assert prepared["max_workers"] == sum(kind.max_nodes for kind in NODES.workers)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda config: config.update(idle_timeout_minute=3), "idle_timeout_minute"),
        (lambda config: config["available_node_types"]["gpu-spot"].update(minworkers=1), "minwork"),
        (lambda config: config["docker"].update(imagee="x"), "imagee"),
        (
            lambda config: config["available_node_types"]["gpu-spot"]["resources"].update(GPU=0.5),
            "0.5",
        ),
    ],
)
def test_rays_schema_catches_planted_typos(change, says):
    config = launcher("aws")
    change(config)
    assert any(says in error for error in schema_errors(config))


@pytest.mark.parametrize("target", LAUNCHERS)
def test_launcher_files_keep_strangers_out(target):
    config = launcher(target)
    options = config["docker"]["run_options"]
    assert "-e RAY_AUTH_MODE=token" in options
    head = " ".join(config["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in head
    assert "--num-cpus=0" in head
    text = render(target)[f"{target}.yaml"]
    for secret in ("SECRET_ACCESS_KEY", "AWS_ACCESS_KEY", "password"):
        assert secret not in text


@pytest.mark.parametrize("target", LAUNCHERS)
def test_every_machine_fills_its_model_cache_before_ray_starts(target):
    mine = Settings(model_source="s3://my bucket/sets/mine", model_mirror=None)
    config = yaml.safe_load(render(target, settings=mine)[f"{target}.yaml"])
    mounts = [option for option in config["docker"]["run_options"] if option.startswith("-v ")]
    assert any(option.endswith(":/models") for option in mounts)
    for part in ("head_start_ray_commands", "worker_start_ray_commands"):
        commands = config[part]
        (fill,) = [number for number, text in enumerate(commands) if "jobs.model_cache" in text]
        (start,) = [number for number, text in enumerate(commands) if "ray start" in text]
        assert fill < start
        env, home, *run, source, to, folder = shlex.split(commands[fill])
        assert (env, run) == ("env", ["python", "-m", "jobs.model_cache"])
        assert home == "HF_HOME=/models/.hub"
        command = typer.main.get_command(model_cache.app)
        found = command.make_context("command", [source, to, folder]).params
        assert (found["source"], str(found["to"])) == ("s3://my bucket/sets/mine", "/models")


def test_spot_kinds_are_spot_instances_and_the_others_are_not():
    for target, asked in (
        ("aws", lambda node: node.get("InstanceMarketOptions", {}).get("MarketType")),
        ("gcp", lambda node: node.get("scheduling", {}).get("provisioningModel")),
    ):
        for name, row in launcher(target)["available_node_types"].items():
            kind = NODES.kind(name)
            assert kind is not None
            found = asked(row["node_config"])
            assert (found is not None and found.lower() == "spot") == (kind.market == "spot")


def test_images_of_gpu_machines_have_a_driver_for_the_pinned_cuda():
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    (toolkit,) = [line.split("==")[1] for line in pins if line.startswith("cuda-toolkit==")]
    oldest = {12: 525, 13: 580}  # drivers, by major version of CUDA: NVIDIA's minor compatibility
    assert int(toolkit.split(".")[0]) == CUDA_MAJOR
    assert oldest[CUDA_MAJOR] == GPU_DRIVER
    for name, row in launcher("gcp")["available_node_types"].items():
        image = row["node_config"]["disks"][0]["initializeParams"]["sourceImage"]
        if "gpu" in name:
            assert int(image.rpartition("-nvidia-")[2]) >= GPU_DRIVER
    for row in launcher("aws")["available_node_types"].values():
        assert row["node_config"]["ImageId"] == SETTINGS.aws_ami


@pytest.mark.parametrize(
    "values",
    [
        {"aws_ami": "latest_dlami"},
        {"aws_ami": "resolve:ssm:/aws/service/deeplearning/ami"},
        {"gcp_image_cuda": "projects/x/global/images/family/common-cu128-ubuntu-2204-nvidia-570"},
    ],
)
def test_images_with_older_drivers_are_refused(values):
    with pytest.raises(ValidationError, match="580 or newer, which CUDA 13 needs"):
        Settings.model_validate(values)


def test_disks_on_google_cloud_are_of_a_type_that_gpu_machines_take():
    config = yaml.safe_load(render("gcp", settings=Settings(gcp_zone="europe-west4-b"))["gcp.yaml"])
    for row in config["available_node_types"].values():
        (disk,) = row["node_config"]["disks"]
        # Ray completes names of machine types and of accelerators, and no others
        assert disk["initializeParams"]["diskType"] == "zones/europe-west4-b/diskTypes/pd-balanced"


def test_store_access_is_by_role_on_every_machine():
    for row in launcher("aws")["available_node_types"].values():
        assert row["node_config"]["IamInstanceProfile"]["Name"]
        assert row["node_config"]["MetadataOptions"]["HttpTokens"] == "required"
    for row in launcher("gcp")["available_node_types"].values():
        assert row["node_config"]["serviceAccounts"][0]["email"]


def test_trainers_fill_the_memory_of_their_nodes_and_no_more():
    for kind in NODES.workers:
        if kind.pool == "trainers":
            assert kind.trainers == kind.cpus / TABLE.trainer.num_cpus
            assert kind.trainers * TRAINER_GIB + kind.shm_gib < kind.memory_gib


def changed(name: str, /, **values) -> dict:
    table = NODES.model_dump()
    row = next(kind for kind in table["kinds"] if kind["name"] == name)
    row.update(values)
    return table


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (changed("gpu-spot", gpus=0), "names an accelerator"),
        (changed("gpu-spot", min_nodes=17), "min_nodes 17 is above 16"),
        (changed("gpu-spot", cpus=4), "2 shapes"),
        (changed("head", market="spot"), "takes all along"),
        (changed("trainer-spot", memory_gib=64), "do not fit"),
        (changed("trainer-on-demand", pool="head"), "one kind of head"),
        (changed("gpu-spot", name="gpu-on-demand"), "two kinds of one name"),
        (changed("gpu-spot", nmae="x"), "nmae"),
    ],
)
def test_a_table_that_cannot_work_is_refused(table, says):
    with pytest.raises(ValidationError, match=says):
        NodeTable.model_validate(table)


def test_the_command_writes_checks_and_sets(tmp_path):
    runner = CliRunner()
    base = ["render", "--target", "aws", "--to", str(tmp_path)]
    assert runner.invoke(app, [*base, "--check"]).exit_code == 1
    assert not (tmp_path / "aws.yaml").exists()
    assert runner.invoke(app, base).exit_code == 0
    assert runner.invoke(app, [*base, "--check"]).exit_code == 0
    assert runner.invoke(app, [*base, "--set", "aws_region=eu-central-1"]).exit_code == 0
    written = yaml.safe_load((tmp_path / "aws.yaml").read_text())
    assert written["provider"]["region"] == "eu-central-1"
    wrong = runner.invoke(app, [*base, "--set", "aws_regoin=x"])
    assert wrong.exit_code == 2
    assert "aws_regoin" in wrong.stderr


def test_another_table_of_nodes_reaches_every_target(tmp_path):
    runner = CliRunner()
    shown = runner.invoke(app, ["nodes", "--json"])
    table = json.loads(shown.stdout)
    next(kind for kind in table["kinds"] if kind["name"] == "gpu-spot")["max_nodes"] = 99
    file = tmp_path / "nodes.json"
    file.write_text(json.dumps(table))
    done = runner.invoke(app, ["render", "--nodes", str(file), "--to", str(tmp_path)])
    assert done.exit_code == 0
    assert "max_workers: 99" in (tmp_path / "aws.yaml").read_text()
    assert "maxReplicas: 99" in (tmp_path / "kuberay/cluster/raycluster.yaml").read_text()
    assert tuple(Target) == TARGETS
    assert SETTINGS.name == "editfarm"
