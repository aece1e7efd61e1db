"""Container, systemd and Kubernetes files: by linters where they are here, and by the rules that matter."""

import re
import shutil
import subprocess
from dataclasses import fields
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
UNIT = ROOT / "deploy" / "g2vlm.service"
MANIFEST = ROOT / "deploy" / "kubernetes.yaml"


def instructions() -> list[tuple[str, str]]:
    """(word, rest) of a Dockerfile, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.M).replace("\\\n", " ")
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in text.splitlines() if line.strip()]


def documents() -> dict[str, Any]:
    found = {each["kind"]: each for each in yaml.safe_load_all(MANIFEST.read_text())}
    assert set(found) == {"PersistentVolumeClaim", "Deployment", "Service", "NetworkPolicy"}
    return found


def pod() -> Any:
    return documents()["Deployment"]["spec"]["template"]["spec"]


def options_in(words: str) -> set[str]:
    return set(re.findall(r"--([a-z_]+)", words))


def test_the_base_is_pinned_and_no_stage_is_another() -> None:
    arguments = dict(rest.split("=", 1) for word, rest in instructions() if word == "ARG")
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-[a-z]+(@sha256:[0-9a-f]{64})?", arguments["BASE"])
    stages = [rest for word, rest in instructions() if word == "FROM"]
    assert len(stages) == 2
    assert all(stage.startswith("${BASE} AS ") for stage in stages)


def test_the_container_is_not_root_and_fetches_nothing_unseen() -> None:
    words = [word for word, _ in instructions()]
    assert "ADD" not in words
    assert [rest for word, rest in instructions() if word == "USER"] == ["10001:10001"]
    # Nothing is built or copied after the user is set, and the last stage has no package manager's cache.
    last = words[max(place for place, word in enumerate(words) if word == "FROM") :]
    assert "RUN" not in last[last.index("USER") :]
    assert "COPY" not in last[last.index("USER") :]
    assert not any("curl" in rest or "wget" in rest or "sudo" in rest for _, rest in instructions())
    assert "HEALTHCHECK" in last


def test_only_what_the_wheel_needs_goes_to_the_builder() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] not in ("", "#")]
    assert lines[0] == "*"
    let_in = {line[1:] for line in lines if line.startswith("!")}
    copied = next(rest for word, rest in instructions() if word == "COPY").split()[:-1]
    assert let_in == {*copied, "src"}
    assert all((ROOT / name).exists() for name in let_in)
    assert not any(fnmatch(name, pattern) for name in (".git", "keys.json") for pattern in let_in)


def test_hadolint_finds_nothing() -> None:
    if shutil.which("hadolint") is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run(["hadolint", DOCKERFILE], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_commands_use_options_that_exist() -> None:
    pytest.importorskip("fastapi", reason="the extra of the service")
    serve = pytest.importorskip("g2vlm.cli.serve")
    known = {field.name for field in fields(serve.Options)}
    entry = next(rest for word, rest in instructions() if word == "ENTRYPOINT")
    command = next(rest for word, rest in instructions() if word == "CMD")
    start = next(line for line in UNIT.read_text().splitlines() if line.startswith("ExecStart="))
    for words in (entry, command, start):
        assert options_in(words), words
        assert options_in(words) <= known


def test_systemd_reads_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    # The command lies where the unit is installed, not here.
    (tmp_path / UNIT.name).write_text(
        UNIT.read_text().replace("/opt/g2vlm/bin/g2vlm", shutil.which("true") or "")
    )
    done = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / UNIT.name], capture_output=True, text=True, timeout=60
    )
    said = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert said == []


def test_the_unit_takes_everything_that_is_not_needed() -> None:
    lines = set(UNIT.read_text().splitlines())
    for line in (
        *(
            "DynamicUser=yes",
            "NoNewPrivileges=yes",
            "ProtectSystem=strict",
            "ProtectHome=yes",
            "PrivateTmp=yes",
        ),
        *("CapabilityBoundingSet=", "LimitCORE=0", "UMask=0077", "StateDirectoryMode=0700"),
    ):
        assert line in lines


def test_the_pod_is_not_root_and_writes_to_volumes_alone() -> None:
    (container,) = pod()["containers"]
    user = next(rest for word, rest in instructions() if word == "USER").partition(":")[0]
    assert pod()["securityContext"]["runAsNonRoot"] is True
    assert str(pod()["securityContext"]["runAsUser"]) == user
    assert pod()["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    volumes = next(rest for word, rest in instructions() if word == "VOLUME")
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert {path for path, mount in mounts.items() if not mount.get("readOnly")} == set(
        yaml.safe_load(volumes)
    )
    assert {mount["name"] for mount in mounts.values()} == {volume["name"] for volume in pod()["volumes"]}


def test_keys_lie_where_the_command_looks_for_them_and_are_readable() -> None:
    (container,) = pod()["containers"]
    command = yaml.safe_load(next(rest for word, rest in instructions() if word == "CMD"))
    (mount,) = (each for each in container["volumeMounts"] if each["name"] == "keys")
    assert command[1].startswith(mount["mountPath"] + "/")
    (secret,) = (each["secret"] for each in pod()["volumes"] if each["name"] == "keys")
    assert secret["defaultMode"] == 0o440


def test_probes_ask_what_there_is() -> None:
    (container,) = pod()["containers"]
    paths = {
        container[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")
    }
    source = (ROOT / "src" / "g2vlm" / "server" / "health.py").read_text()
    assert paths == {"/health/live", "/health/ready"}
    assert all(f'"{path}"' in source for path in paths)
    assert "/health/live" in next(rest for word, rest in instructions() if word == "HEALTHCHECK")
    assert {"memory", "ephemeral-storage"} <= set(container["resources"]["limits"])


def test_one_service_has_the_folder_and_time_to_hand_back() -> None:
    deployment = documents()["Deployment"]["spec"]
    assert (deployment["replicas"], deployment["strategy"]["type"]) == (1, "Recreate")
    settings = pytest.importorskip("g2vlm.server.settings")
    grace_s = settings.Settings("m").grace_s
    assert pod()["terminationGracePeriodSeconds"] > grace_s
    stop_s = re.search(r"TimeoutStopSec=(\d+)", UNIT.read_text())
    assert stop_s is not None
    assert int(stop_s[1]) > grace_s
