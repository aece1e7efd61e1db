"""A checkup passes the bundled model and sees every fault that is put into it."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import g2vlm
from g2vlm.checkpoints.loading import CHAT_PARTS
from g2vlm.checkpoints.places import BUNDLED_FOLDER, BUNDLED_NAME
from g2vlm.cli.main import main
from g2vlm.evaluation.checkup.answering import is_language
from g2vlm.evaluation.checkup.examination import Examination, check_up, file_rows
from g2vlm.evaluation.checkup.examples import Examples, read_examples
from g2vlm.evaluation.checkup.geometry import KnownViews, between_views, depth_order, orthonormality
from g2vlm.evaluation.checkup.loaded import memory_rows
from g2vlm.evaluation.checkup.looking import Looker
from g2vlm.evaluation.checkup.pictures import arriving_rows
from g2vlm.evaluation.checkup.report import format_checkup
from g2vlm.evaluation.checkup.rows import Group, Row
from g2vlm.evaluation.checkup.stored import significant_bits
from g2vlm.model import geometric_encoder
from g2vlm.pipeline import Model

BUNDLED = BUNDLED_FOLDER / BUNDLED_NAME


def failed(rows: list[Row]) -> set[str]:
    return {row.subject for row in rows if row.passed is False}


@pytest.fixture(scope="module")
def examples() -> Examples:
    return read_examples()


@pytest.fixture
def model() -> Model:
    loaded = g2vlm.load(BUNDLED_NAME, device="cpu", dtype="float32")
    loaded.load_parts(CHAT_PARTS)
    return loaded


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The bundled checkpoint, to be damaged; without its list of digests."""
    folder = tmp_path / "copy"
    shutil.copytree(BUNDLED, folder)
    (folder / "SHA256SUMS").unlink()
    return folder


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file({key: values.contiguous() for key, values in tensors.items()}, folder / "model.safetensors")


# --- the files


def test_files_of_the_bundled_model_are_as_expected() -> None:
    rows = list(file_rows(BUNDLED))
    assert failed(rows) == set()
    assert all(row.passed for row in rows)
    assert all(row.broken and row.expected for row in rows)


def test_truncated_file_ends_the_checkup(copy: Path) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    found = check_up(copy, "copy", lambda: pytest.fail("must not be loaded"))
    assert failed(list(found.rows)) == {"keys and shapes"}
    assert not found.passed


def test_changed_file_has_another_digest(copy: Path) -> None:
    shutil.copy(BUNDLED / "SHA256SUMS", copy)
    rewrite(copy, lambda tensors: tensors[MATRIX].neg_())
    assert "SHA-256 of model.safetensors" in failed(list(file_rows(copy)))


MATRIX = "language_model.model.layers.2.mlp.down_proj.weight"
OTHER = "language_model.model.layers.3.mlp.down_proj.weight"


def _drop(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[MATRIX]


def _cut(tensors: dict[str, torch.Tensor]) -> None:
    tensors[MATRIX][-20:] = 0


def _twin(tensors: dict[str, torch.Tensor]) -> None:
    tensors[MATRIX] = tensors[OTHER].clone()


def _draw(tensors: dict[str, torch.Tensor]) -> None:
    tensors[MATRIX] = torch.randn(tensors[MATRIX].shape).to(tensors[MATRIX].dtype) * 10


def _overflow(tensors: dict[str, torch.Tensor]) -> None:
    tensors[MATRIX][0, 0] = float("inf")


def _quantize(tensors: dict[str, torch.Tensor]) -> None:
    for key in (MATRIX, OTHER):
        tensors[key] = tensors[key].to(torch.float8_e4m3fn).to(torch.bfloat16)


@pytest.mark.parametrize(
    ("change", "subject"),
    [
        (_drop, "keys and shapes"),
        (_cut, "rows without numbers"),
        (_twin, "matrices that are there twice"),
        (_draw, "matrices unlike those of other layers"),
        (_overflow, "tensors with numbers that are not finite"),
        (_quantize, "significant bits"),
    ],
)
def test_damaged_tensor_is_seen(
    copy: Path, change: Callable[[dict[str, torch.Tensor]], None], subject: str
) -> None:
    rewrite(copy, change)
    assert failed(list(file_rows(copy))) == {subject}


def test_significant_bits() -> None:
    drawn = torch.randn(1000)
    assert significant_bits(drawn) == 24
    assert significant_bits(drawn.bfloat16().float()) == 8
    assert significant_bits(drawn.half().float()) >= 11
    assert significant_bits(drawn.to(torch.float8_e4m3fn).float()) <= 4
    assert significant_bits(torch.zeros(10)) == 1


# --- the weights in memory


def test_weights_in_memory_are_those_of_the_file(model: Model) -> None:
    assert failed(list(memory_rows(model))) == set()


def test_wrong_precision_in_memory_is_seen(model: Model) -> None:
    model.network.point_head.to(torch.bfloat16)
    assert failed(list(memory_rows(model))) == {"number formats", "numbers of the file"} - (
        {"numbers of the file"} if _stored_in_bfloat16() else set()
    )


def _stored_in_bfloat16() -> bool:
    return load_file(BUNDLED / "model.safetensors")["point_head.proj.weight"].dtype is torch.bfloat16


def test_layers_in_each_others_place_are_seen_in_memory(model: Model) -> None:
    exchange(model, "geometric_encoder.layers.1.", "geometric_encoder.layers.2.")
    assert failed(list(memory_rows(model))) == {"numbers of the file"}


# --- preparation of pictures


def test_exchanged_normalisations_are_seen(
    model: Model, examples: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = Looker(model, examples.photos)
    assert failed(list(arriving_rows(look))) == set()
    clip = look.preparation.mean, look.preparation.std
    look.preparation = dataclasses.replace(
        look.preparation, mean=geometric_encoder.MEAN, std=geometric_encoder.STD
    )
    monkeypatch.setattr(geometric_encoder, "MEAN", clip[0])
    monkeypatch.setattr(geometric_encoder, "STD", clip[1])
    assert failed(list(arriving_rows(look))) == {
        "what arrives at the geometric encoder (DINOv2)",
        "what arrives at the semantic encoder (Qwen2-VL)",
    }


# --- what the model makes of the photos


def exchange(model: Model, first: str, second: str) -> None:
    """Put the weights whose names begin in one way into the place of those that begin in another."""
    weights = dict(model.network.named_parameters())
    found = [name for name in weights if name.startswith(first) and name.replace(first, second, 1) in weights]
    assert found
    for name in found:
        one, other = weights[name], weights[name.replace(first, second, 1)]
        one.data, other.data = other.data, one.data


def shuffle_rows(model: Model, prefix: str, leaf: str) -> None:
    generator = torch.Generator().manual_seed(0)
    for name, values in model.network.named_parameters():
        if name.startswith(prefix) and leaf in name and values.ndim == 2:
            values.data = values.data[torch.randperm(len(values), generator=generator)].clone()


def exchange_channels(model: Model, encoder: str) -> None:
    values = getattr(model.network, encoder).patch_embedding.weight
    values.data = values.data.view(len(values), 3, -1).flip(1).reshape(values.shape).clone()


def exchange_attention_heads(model: Model) -> None:
    """The first and the last head of the keys of the geometric expert, in every layer."""
    size, heads = model.config.mixture.head_dim, model.config.mixture.num_heads
    for layer in model.network.mixture.layers:
        for values in (layer.geometric.qkv.weight, layer.geometric.qkv.bias):
            keys = values.data[heads * size : 2 * heads * size].clone()
            values.data[heads * size : (heads + 1) * size] = keys[-size:]
            values.data[(2 * heads - 1) * size : 2 * heads * size] = keys[:size]


def coarsen(model: Model) -> None:
    """Round all weights of the towers to 8 bits (fp8)."""
    for values in model.network.mixture.parameters():
        values.data = values.data.to(torch.float8_e4m3fn).float()


FAULTS: dict[str, Callable[[Model], None]] = {
    "experts of a layer exchanged": lambda m: exchange(
        m, "mixture.layers.2.semantic.", "mixture.layers.2.geometric."
    ),
    "geometry heads exchanged": lambda m: exchange(m, "point_head.decoder.", "camera_head.decoder."),
    "attention heads exchanged": exchange_attention_heads,
    "layers of the mixture exchanged": lambda m: exchange(m, "mixture.layers.2.", "mixture.layers.3."),
    "layers of the geometric encoder exchanged": lambda m: exchange(
        m, "geometric_encoder.layers.1.", "geometric_encoder.layers.2."
    ),
    "rows of the geometric encoder shuffled": lambda m: shuffle_rows(m, "geometric_encoder.layers.", "qkv"),
    "rows of the semantic encoder shuffled": lambda m: shuffle_rows(m, "semantic_encoder.layers.", "up"),
    "language head shuffled": lambda m: shuffle_rows(m, "language_head", "weight"),
    "channels of the geometric encoder exchanged": lambda m: exchange_channels(m, "geometric_encoder"),
    "channels of the semantic encoder exchanged": lambda m: exchange_channels(m, "semantic_encoder"),
    "weights rounded to 8 bits": coarsen,
}


def behaviour(model: Model, examples: Examples) -> list[Row]:
    """Rows about what the model computes, without those that compare its weights with the file."""
    rows = Examination(model, BUNDLED_NAME).rows(examples)
    return [row for row in rows if row.group is not Group.MEMORY]


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_seeded_fault_is_seen_in_results(fault: str, model: Model, examples: Examples) -> None:
    FAULTS[fault](model)
    found = failed(behaviour(model, examples))
    assert found
    if fault.startswith("channels of the geometric"):
        assert "depth error of one photo" in found
    if fault.startswith("channels of the semantic"):
        assert "how unlikely true answers are" in found


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_bundled_model_is_as_expected(dtype: str, examples: Examples) -> None:
    found = check_up(BUNDLED, BUNDLED_NAME, lambda: g2vlm.load(BUNDLED_NAME, device="cpu", dtype=dtype))
    assert failed(list(found.rows)) == set()
    assert all(row.passed for row in found.rows)
    assert {row.group for row in found.rows} == set(Group)


def test_numbers_that_are_none_are_a_finding_and_no_traceback(model: Model, examples: Examples) -> None:
    next(model.network.point_head.parameters()).data.fill_(float("nan"))
    assert failed(behaviour(model, examples))


# --- measures


def test_truth_agrees_with_itself(examples: Examples) -> None:
    whole = examples.truth
    truth = KnownViews(whole.depth, whole.valid, whole.T_world_camera, whole.K)
    assert len(examples.photos) == len(truth.depth) == 4
    assert between_views(truth.points_world, truth.depth, truth, truth.valid) < 0.005
    assert depth_order(truth.depth, truth.depth, truth.valid) == 1.0
    assert depth_order(-truth.depth, truth.depth, truth.valid) == 0.0
    assert orthonormality(truth.T_world_camera) < 1e-4


def test_reflection_is_no_rotation() -> None:
    mirrored = torch.eye(4)[None].clone()
    mirrored[0, 0, 0] = -1
    assert orthonormality(mirrored) == 2.0


@pytest.mark.parametrize(
    "text", ["!!!!!!!!", "", "the the the the the the the the the", "\ufffd\ufffd", "aaaaaaaaaaaa"]
)
def test_garbage_is_no_language(text: str) -> None:
    assert not is_language(text)


@pytest.mark.parametrize("text", ["B", "1.4 m", "The red lamp is to the left. Answer: B", "左边。"])
def test_answers_are_language(text: str) -> None:
    assert is_language(text)


# --- the command


def test_doctor_proves_a_checkpoint_and_writes_a_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.md"
    assert main(["doctor", "--ckpt", "g2vlm-tiny", "--device", "cpu", "--json", "--report", str(report)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["checkpoint"]["passed"] is True
    assert {"subject", "passed", "found", "expected", "broken"} <= told["checkpoint"]["rows"][0].keys()
    text = report.read_text(encoding="utf-8")
    for word in ("processor", "versions", "torch", "order in depth", "focal length", "words", "g2vlm-tiny"):
        assert word in text
    # A table: every line has as many cells.
    cells = {line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("|")}
    assert cells == {6}


def test_doctor_fails_on_a_broken_checkpoint(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rewrite(copy, _drop)
    assert main(["doctor", "--ckpt", str(copy)]) == 1
    out = capsys.readouterr().out
    assert f"[fail] keys and shapes: 1 missing: {MATRIX}" in out


def test_report_marks_what_is_wrong(copy: Path) -> None:
    rewrite(copy, _drop)
    found = check_up(copy, "copy", lambda: pytest.fail("must not be loaded"))
    text = format_checkup(found, {"processor": "a | b"})
    assert "NOT as expected" in text
    assert "**other than expected** | keys and shapes" in text
