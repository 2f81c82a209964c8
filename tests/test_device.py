"""Devices that lack something: what runs in its place, and that the log says so. The devices are pretended."""

import logging

import pytest
import torch

from stylerdalle import device
from stylerdalle.images import resample
from stylerdalle.translator import model
from stylerdalle.translator.model import Translator, TranslatorConfig

MPS = torch.device("mps")
CACHED = (device.announced, device.multiplies_in_bf16, resample.tell_of_fallback, model.masks_fail)


@pytest.fixture(autouse=True)
def _asked_anew(caplog):
    caplog.set_level(logging.INFO)
    for function in CACHED:
        function.cache_clear()
    yield
    for function in CACHED:
        function.cache_clear()


@pytest.mark.parametrize(("fallback", "says"), [("1", "lacks there run on the CPU"), ("", "MPS_FALLBACK=1 before the start")])
def test_mps_says_once_where_operators_run_that_it_lacks(fallback, says, monkeypatch, caplog):
    monkeypatch.setenv(device.FALLBACK, fallback)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert [device.choose_device(), device.choose_device()] == [MPS, MPS]
    (line,) = caplog.messages
    assert says in line


def test_other_devices_say_nothing(caplog):
    assert device.choose_device("cpu").type == "cpu"
    assert caplog.messages == []


def test_training_multiplies_in_float32_where_there_is_no_bfloat16(monkeypatch, caplog):
    def probe(kind: str) -> None:
        raise TypeError(f"BFloat16 is not supported on {kind}")

    monkeypatch.setattr(device, "probe", probe)
    for _ in range(2):
        with device.autocast(MPS), torch.autocast("cpu", enabled=False):
            assert not torch.is_autocast_enabled("mps")
    (line,) = caplog.messages
    assert line == "mps has no bfloat16 (BFloat16 is not supported on mps): training multiplies in float32 there"


@pytest.mark.parametrize(("fast", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_cpu_multiplies_in_bfloat16_only_if_it_is_fast_at_it(fast, dtype, monkeypatch, caplog):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: fast)
    ones = torch.ones(4, 4)
    with device.autocast(torch.device("cpu")):
        assert (ones @ ones).dtype == dtype
    assert device.choose_dtype(torch.device("cpu")) == dtype
    assert not caplog.messages


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
def test_a_device_without_antialiasing_resizes_on_the_cpu_with_the_same_result_and_gradient(mode, monkeypatch, caplog):
    images = torch.rand(1, 3, 20, 31, generator=torch.Generator().manual_seed(0))
    found = []
    for without in (("mps",), ("cpu",)):
        monkeypatch.setattr(resample, "WITHOUT_ANTIALIAS", without)
        given = images.clone().requires_grad_(True)
        out = resample.interpolated(given, (9, 12), mode)
        out.square().sum().backward()
        found.append((out, given.grad))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    (line,) = caplog.messages
    assert line.startswith("cpu: pictures are resized on the CPU")


def test_masked_attention_is_plain_products_where_rocm_computes_it_wrong(monkeypatch, caplog):
    translator = Translator(TranslatorConfig(6, 40, 16, 2, 1, 1, 3, 1)).eval().requires_grad_(False)
    read = torch.randn(2, 9, 6, generator=torch.Generator().manual_seed(0))
    want, fused = translator(read), torch.nn.functional.scaled_dot_product_attention

    def faulty(*args, attn_mask=None):
        assert attn_mask is None, "the fault of torch 2.6 on ROCm"
        return fused(*args)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", faulty)
    with pytest.raises(AssertionError):
        translator(read)
    model.masks_fail.cache_clear()
    monkeypatch.setattr(torch.version, "hip", "6.2.4")
    monkeypatch.setattr(torch, "__version__", "2.6.0+rocm6.2.4")
    assert torch.allclose(translator(read), want, atol=1e-5)
    (line,) = caplog.messages
    assert "ROCm has a fault in masked attention" in line


def test_a_constant_is_made_once_and_can_be_part_of_a_gradient():
    device.constant.cache_clear()
    with torch.inference_mode():  # as in use, which comes before a training in the same process
        first = device.constant((1.0, 2.0), torch.device("cpu"))
    assert device.constant((1.0, 2.0), torch.device("cpu")) is first and first.tolist() == [1, 2]
    assert device.constant((1.0, 2.0), torch.device("cpu"), torch.float16).dtype == torch.float16
    x = torch.ones(2, requires_grad=True)
    (x * first).sum().backward()
    assert x.grad.tolist() == [1, 2]
