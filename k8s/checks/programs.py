"""What programs of others say: Terraform, promtool, checkov. A missing one fails in CI and is skipped elsewhere."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import yaml

from k8s.checks.rendered import OVERLAYS, Rendered
from k8s.checks.tools import BUILD, CHECKOV, ROOT, SHARED, found

CONFIGURATIONS: Final = sorted(
    str(path.parent.relative_to(ROOT / "terraform"))
    for path in (ROOT / "terraform").glob("*/*/main.tf")
)
CHECKOV_SKIPS: Final = {
    "CKV_K8S_43": "images are named by version: digests would have to be looked up in registries for each release",
    "CKV_K8S_15": "with versions that do not move, what is on the node is what was tested",
    "CKV_K8S_35": "Redis's password is a variable: REDIS_URL is one, too, and redis-server takes no file",
    "CKV_K8S_40": "ids above 10,000 do not fit Mosquitto's image, whose user is 1883",
    "CKV_K8S_11": "all have limits of CPU; it asks of init containers, too, in another place",
    "CKV_K8S_8": "a job has no liveness: it ends",
    "CKV_K8S_9": "a job has no readiness: nobody calls it",
    "CKV2_K8S_6": "policies are a component, which the overlay local does without",
    "CKV_GCP_84": "Google's own keys encrypt images; a key of ours would have to be kept by somebody",
    "CKV_GCP_62": "who reads models is in the audit log of the project",
    "CKV_GCP_61": "flow logs are on for the subnetwork of the nodes, which GKE uses",
    "CKV_GCP_66": "binary authorization needs who signs: images come from one's own registry, tags do not move",
    "CKV_GCP_65": "Google groups as RBAC subjects are the organisation's to choose",
    "CKV_GCP_69": "the default pool, which it means, is removed; ours have GKE_METADATA",
    "CKV_GCP_68": "the default pool, which it means, is removed; ours boot securely",
    "CKV_GCP_21": "labels are whoever pays's to choose",
    "CKV_GCP_13": "client certificates have been off by default since GKE 1.12",
    "CKV_GCP_12": "NetworkPolicies are kept by the data plane V2 (ADVANCED_DATAPATH)",
    "CKV2_GCP_18": "GKE makes the rules that its nodes need; without automatic subnetworks there is no default one",
    "CKV_TF_1": "modules are folders of this repository",
    "CKV_TF_2": "modules are folders of this repository",
}
"""What of checkov's policies is not followed, and why."""


class Absent(Exception):
    """A program or folder that a check needs is not there; how to get it."""


def terraform(folder: str) -> Iterator[str]:
    """init, validate and test of one module or environment, by providers' schemas, without a cloud."""
    program, kit = found("terraform"), SHARED / "tools" / "terraform-offline" / "mirror.sh"
    if program is None:
        raise Absent("terraform is not installed: sh scripts/deploy-tools.sh")
    if not kit.exists():
        raise Absent(f"the providers' schemas are not in {SHARED} (CARTWIN_SHARED)")
    made = _run("sh", str(kit), str(BUILD / "mirror"))
    if made.returncode:
        yield f"the mirror of providers was not made: {made.stderr[-300:]}"
        return
    mirror = made.stdout.strip().splitlines()[-1]
    # A copy, so that nothing of the stand-ins stays in the tree; the modules come along.
    with tempfile.TemporaryDirectory(prefix="cartwin-terraform-") as name:
        shutil.copytree(
            ROOT / "terraform",
            Path(name) / "terraform",
            ignore=shutil.ignore_patterns(".terraform*"),
        )
        at = Path(name) / "terraform" / folder
        for command in (
            ("init", "-backend=false", f"-plugin-dir={mirror}", "-no-color"),
            ("validate", "-no-color"),
            ("test", "-no-color"),
        ):
            done = _run(program, *command, at=at)
            if done.returncode:
                yield f"terraform {command[0]} in {folder}: {_told(done)}"
                return


def formatted() -> Iterator[str]:
    """terraform fmt."""
    program = found("terraform")
    if program is None:
        raise Absent("terraform is not installed: sh scripts/deploy-tools.sh")
    done = _run(program, "fmt", "-check", "-recursive", "-no-color", str(ROOT / "terraform"))
    if done.returncode:
        yield f"terraform fmt would change {done.stdout.split()}"


def promtool() -> Iterator[str]:
    """Rules and configuration are read, and every alert's test passes."""
    if shutil.which("promtool") is None:
        raise Absent("promtool is not installed: sh scripts/deploy-tools.sh")
    at = ROOT / "k8s" / "observability"
    for command in (
        ("check", "rules", "rules.yml"),
        ("check", "config", "prometheus.yml"),
        ("test", "rules", "rules_test.yml"),
    ):
        done = _run("promtool", *command, at=at)
        if done.returncode:
            yield f"promtool {' '.join(command)}: {_told(done)}"
    alerts = {
        rule["alert"]
        for group in yaml.safe_load((at / "rules.yml").read_text())["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    tests = yaml.safe_load((at / "rules_test.yml").read_text())["tests"]
    asked = [one for test in tests for one in test.get("alert_rule_test", ())]
    for name in sorted(alerts - {one["alertname"] for one in asked if one["exp_alerts"]}):
        yield f"no test lets {name} fire"
    for name in sorted(alerts - {one["alertname"] for one in asked if not one["exp_alerts"]}):
        yield f"no test keeps {name} quiet"


def checkov(overlay: str) -> Iterator[str]:
    """Policies of others on what an overlay renders; `terraform` is another such."""
    if not Path(CHECKOV).exists():
        raise Absent("checkov is not installed: sh scripts/deploy-tools.sh")
    skips = ",".join(CHECKOV_SKIPS)
    with tempfile.TemporaryDirectory(prefix="cartwin-checkov-") as folder:
        if overlay in OVERLAYS:
            path = Path(folder) / "rendered.yaml"
            path.write_text(yaml.safe_dump_all(Rendered.of(overlay, ROOT).objects))
            where = ("-f", str(path), "--framework", "kubernetes")
        else:
            where = ("-d", str(ROOT / "terraform"), "--framework", "terraform")
        done = _run(
            CHECKOV, *where, "--compact", "--quiet", "--skip-download", "--skip-check", skips,
            env={**os.environ, "LOG_LEVEL": "ERROR"},
        )  # fmt: skip
    if done.returncode:
        failed = [
            line for line in done.stdout.splitlines() if "FAILED" in line or "Check: " in line
        ]
        yield f"checkov on {overlay}: {' | '.join(failed)[:1500] or _told(done)}"


def _run(
    *command: str, at: Path = ROOT, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    told = {**(env or os.environ), "TF_CLI_CONFIG_FILE": "/dev/null", "CHECKPOINT_DISABLE": "1"}
    return subprocess.run(command, cwd=at, env=told, capture_output=True, text=True, check=False)


def _told(done: subprocess.CompletedProcess[str]) -> str:
    return " ".join((done.stdout + done.stderr).split())[-900:]
