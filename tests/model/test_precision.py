"""Words of a user for device and number format."""

import pytest
import torch

import g2vlm
from g2vlm.errors import DeviceError
from g2vlm.model import precision
from g2vlm.model.config import g2vlm_test
from g2vlm.model.network import G2VLM
from g2vlm.model.precision import FLOAT32_PARTS, Precision, allow_tf32, cast_, choose_placement


@pytest.fixture
def no_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("float32", Precision.FLOAT32),
        ("fp32", Precision.FLOAT32),
        ("bfloat16", Precision.BFLOAT16),
        ("bf16", Precision.BFLOAT16),
    ],
)
def test_number_formats_have_short_names(word: str, expected: Precision) -> None:
    assert choose_placement("cpu", word).precision is expected


@pytest.mark.parametrize(("fast", "expected"), [(True, Precision.BFLOAT16), (False, Precision.FLOAT32)])
def test_auto_on_a_cpu_follows_its_hardware(
    fast: bool, expected: Precision, no_accelerator: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "taken", lambda path: fast)
    placement = choose_placement()
    assert placement.device == torch.device("cpu")
    assert placement.precision is expected


def test_auto_prefers_cuda_then_mps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    cuda = choose_placement()
    assert (cuda.device.type, cuda.precision) == ("cuda", Precision.BFLOAT16)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    mps = choose_placement()
    assert (mps.device.type, mps.precision) == ("mps", Precision.FLOAT32)


def test_a_named_gpu_is_taken_where_it_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_placement("cuda:1").device == torch.device("cuda:1")
    with pytest.raises(DeviceError, match=r"'cuda:2', but torch .* sees 2"):
        choose_placement("cuda:2")


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("cuda", "sees 0: use --device cpu"),
        ("cuda:3", "'cuda:3', but torch .* sees 0"),
        ("mps", "Apple GPU"),
        ("gpu", "such as auto, cpu, cuda or cuda:1, got 'gpu'"),
        ("", "got ''"),
        ("cuda:x", "got 'cuda:x'"),
        ("meta", "cpu, cuda or mps device, got 'meta'"),
        ("xpu", "cpu, cuda or mps device, got 'xpu'"),
    ],
)
def test_a_device_that_is_not_here_is_an_error_with_advice(
    device: str, message: str, no_accelerator: None
) -> None:
    with pytest.raises(DeviceError, match=message):
        choose_placement(device)


@pytest.mark.parametrize("dtype", ["float16", "fp16", "int8", "Float32", ""])
def test_other_number_formats_are_refused(dtype: str) -> None:
    with pytest.raises(DeviceError, match=f"Expected dtype auto, float32 or bfloat16, got {dtype!r}"):
        choose_placement("cpu", dtype)


def test_casting_leaves_the_geometry_heads_in_float32() -> None:
    network = G2VLM(g2vlm_test())
    cast_(network, Precision.BFLOAT16)
    heads = {part.value for part in FLOAT32_PARTS}
    for name, parameter in network.named_parameters():
        in_head = name.split(".")[0] in heads
        assert parameter.dtype is (torch.float32 if in_head else torch.bfloat16), name
    cast_(network, Precision.FLOAT32)
    assert {p.dtype for p in network.parameters()} == {torch.float32}


def test_tf32_is_a_choice_for_cuda_only() -> None:
    products = torch.backends.cuda.matmul
    before = products.fp32_precision
    try:
        with pytest.raises(DeviceError, match="Expected a CUDA GPU for TF32 products, got cpu"):
            g2vlm.load(device="cpu", tf32=True)
        assert products.fp32_precision == before
        allow_tf32(torch.device("cuda"))
        assert products.fp32_precision == "tf32"
    finally:
        products.fp32_precision = before
