"""From pictures to stylised pictures, with a bundle of tiny random models."""

import gc
import itertools
import shutil
from dataclasses import replace

import pytest
import tiny
import torch

import stylerdalle
from stylerdalle import bundle as bundles
from stylerdalle import checkpoint
from stylerdalle.bundle import load_bundle
from stylerdalle.device import choose_device, choose_dtype
from stylerdalle.images.lines import add_lines
from stylerdalle.pipeline import STEPS, History, stylize
from stylerdalle.resolve import StyleFinder, find_style
from stylerdalle.settings import LINES
from stylerdalle.tokenizers import codec
from stylerdalle.tokenizers.codec import decode, encode
from stylerdalle.tokenizers.tokens import joined
from stylerdalle.translator.model import Translator
from stylerdalle.translator.options import TranslateOptions
from stylerdalle.translator.sampling import Sampling
from stylerdalle.translator.translate import translate


def picture(height: int, width: int, channels: int = 3, batch: int = 1) -> torch.Tensor:
    """Coloured blocks of 8 px: several tokens even in a random tokenizer."""
    generator = torch.Generator().manual_seed(height * 1000 + width)
    small = torch.rand(batch, channels, -(-height // 8), -(-width // 8), generator=generator)
    return small.repeat_interleave(8, 2).repeat_interleave(8, 3)[..., :height, :width].contiguous()


@pytest.fixture(scope="module")
def half(tmp_path_factory) -> stylerdalle.Bundle:
    """A bundle whose translator reads half-size pictures, as the paper's."""
    return load_bundle(tiny.write_bundle(tmp_path_factory.mktemp("half"), upscale=2), "cpu", "fp32")


@pytest.mark.parametrize(("height", "width"), [(2, 2), (7, 9), (32, 32), (33, 70), (100, 41)])
def test_any_size_comes_back_at_its_own_size(bundle, height, width):
    out = stylize(picture(height, width), "ukiyo-e", bundle)
    assert out.shape == (1, 3, height, width)
    assert out.dtype == torch.float32
    assert out.min() >= 0
    assert out.max() <= 1


@pytest.mark.parametrize(("height", "width"), [(2, 2), (33, 70)])
def test_any_size_comes_back_from_a_half_size_translator_too(half, height, width):
    assert stylize(picture(height, width), "ukiyo-e", half).shape == (1, 3, height, width)


@pytest.fixture(scope="module", params=[1, 2])
def vqgan(tmp_path_factory, request) -> stylerdalle.Bundle:
    """Bundles with a VQGAN, same-grid and of half size."""
    folder = tmp_path_factory.mktemp("vqgan")
    return load_bundle(tiny.write_bundle(folder, upscale=request.param, tokens=tiny.vqgan()), "cpu", "fp32")


@pytest.mark.parametrize(("height", "width"), [(5, 9), (33, 70)])
def test_any_size_comes_back_from_a_vqgan_too_and_in_style(vqgan, height, width):
    out = stylize(picture(height, width), "ukiyo-e", vqgan)
    assert out.shape == (1, 3, height, width)
    assert 0 <= out.min() <= out.max() <= 1
    assert not torch.equal(out, stylize(picture(height, width), "ukiyo-e", vqgan, strength=0))


def test_pictures_of_a_batch_do_not_touch_each_other(bundle):
    images = picture(40, 48, batch=3)
    together = stylize(images, "van-gogh", bundle)
    apart = torch.cat([stylize(image[None], "van-gogh", bundle) for image in images])
    assert torch.allclose(together, apart, atol=1e-5)


def test_alpha_is_carried_around_the_models_unchanged(bundle):
    images = picture(33, 50, channels=4)
    out = stylize(images, "ukiyo-e", bundle)
    assert out.shape == images.shape
    assert torch.equal(out[:, 3], images[:, 3])
    assert torch.equal(out[:, :3], stylize(images[:, :3], "ukiyo-e", bundle))


def test_strength_0_is_the_base_translators_picture_and_strength_1_is_not(bundle):
    images = picture(48, 48)
    base = decode(bundle.tokenizer, encode(bundle.tokenizer, images))  # the base is the identity
    hard = Sampling(softness=0)  # one token a place
    assert torch.equal(stylize(images, "ukiyo-e", bundle, strength=0, sampling=hard), base)
    assert not torch.equal(stylize(images, "ukiyo-e", bundle, sampling=hard), base)


def test_a_mask_limits_where_the_style_goes(bundle):
    images = picture(64, 96)
    tokens = encode(bundle.tokenizer, images)
    style = find_style(bundle, "ukiyo-e")
    mask = torch.zeros(1, 64, 96)
    mask[..., 48:] = 1
    base, full, part = (
        translate(bundle.translator, bundle.tokenizer, tokens, [(style, 1.0)], TranslateOptions(strength, m)).grid
        for strength, m in ((0, None), (1, None), (1, mask))
    )
    assert torch.equal(part[..., :6], base[..., :6])
    assert torch.equal(part[..., 6:], full[..., 6:])
    assert not torch.equal(base, full)


def test_every_picture_has_a_mask_of_its_own_or_all_have_one(bundle):
    images, mask = picture(32, 64, batch=2), torch.stack([torch.zeros(32, 64), torch.ones(32, 64)])
    out = stylize(images, "ukiyo-e", bundle, mask=mask)
    assert torch.equal(out[:1], stylize(images[:1], "ukiyo-e", bundle, strength=0))
    assert torch.equal(out[1:], stylize(images[1:], "ukiyo-e", bundle))
    with pytest.raises(ValueError, match="3 masks for 2 pictures"):
        stylize(images, "ukiyo-e", bundle, mask=torch.ones(3, 32, 64))


def test_the_same_seed_gives_the_same_tokens_and_another_seed_others(bundle):
    tokens = encode(bundle.tokenizer, picture(64, 64))
    style = find_style(bundle, "ukiyo-e")
    draws = [
        translate(
            bundle.translator, bundle.tokenizer, tokens, [(style, 1.0)], TranslateOptions(sampling=Sampling(2.0, seed=seed))
        ).grid
        for seed in (7, 7, 8)
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_sampling_leaves_the_global_generator_alone(bundle):
    before = torch.random.get_rng_state()
    stylize(picture(32, 32), "ukiyo-e", bundle, sampling=Sampling(1.0, seed=3))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_strength_above_1_makes_the_changes_of_the_style_larger(bundle):
    tokens, style = encode(bundle.tokenizer, picture(40, 56)), find_style(bundle, "ukiyo-e")
    once, stronger, larger = (
        translate(bundle.translator, bundle.tokenizer, tokens, [(style, weight)], TranslateOptions(strength)).mixture
        for weight, strength in ((1.0, 1.0), (1.0, 1.5), (1.5, 1.0))
    )
    assert torch.equal(stronger, larger)
    assert not torch.equal(stronger, once)


@pytest.mark.parametrize("option", [{"strength": -0.1}, {"strength": 2.5}, {"steady": 1.5}, {"steady": -1}])
def test_options_out_of_range_are_refused_before_any_work(option):
    with pytest.raises(ValueError, match="out of range"):
        TranslateOptions(**option)


def test_a_strength_out_of_range_is_refused(bundle):
    with pytest.raises(ValueError, match="strength 3"):
        stylize(picture(32, 32), "ukiyo-e", bundle, strength=3)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 1, 32, 32), (0, 3, 32, 32), (1, 3, 1, 32)])
def test_pictures_of_an_impossible_shape_are_refused(bundle, shape):
    with pytest.raises(ValueError, match="shape|too small"):
        stylize(torch.zeros(shape), "ukiyo-e", bundle)


def test_the_input_is_left_as_it_was(bundle):
    images = picture(32, 40)
    before = images.clone()
    stylize(images, "ukiyo-e", bundle)
    assert torch.equal(images, before)


@pytest.mark.parametrize("text", ["van-gogh", "VAN-GOGH", "a van gogh style oil painting", "  a  Van Gogh style oil painting "])
def test_a_style_is_found_by_name_and_prompt(bundle, text):
    assert find_style(bundle, text).name == "van-gogh"


def test_styles_and_their_metadata_are_read_once_for_several_prompts(bundle, monkeypatch):
    reads, real = [], stylerdalle.list_styles

    def read(bundle):
        reads.append(bundle.name)
        return real(bundle)

    monkeypatch.setattr("stylerdalle.resolve.list_styles", read)
    finder = StyleFinder(bundle)
    one, two, again = (finder.find(text) for text in ("van-gogh:0.5, ukiyo-e", "ukiyo-e", "van-gogh:0.5, ukiyo-e"))
    assert len(reads) == 1 and again is one and two.name == "ukiyo-e"


def test_a_near_prompt_is_taken_as_the_style(bundle):
    assert find_style(bundle, "Van Gogh style oil painting").name == "van-gogh"


def test_an_unknown_style_is_refused_with_the_list_and_the_way_out(bundle):
    with pytest.raises(ValueError, match="has no style for 'steel bridge'") as caught:
        find_style(bundle, "steel bridge")
    for word in ("van-gogh", "a ukiyo-e print", "stylerdalle tune"):
        assert word in str(caught.value)


@pytest.mark.parametrize(("text", "says"), [("", "is empty"), ("   ", "is empty"), ("x" * 5000, "5000 characters, at most 1000")])
def test_a_prompt_that_is_empty_or_endless_is_refused(bundle, text, says):
    with pytest.raises(ValueError, match=says):
        find_style(bundle, text)


def test_an_empty_prompt_is_the_default_style_and_a_prompt_may_name_another(bundle):
    tuned = tiny.style(bundle.translator, "stained glass")
    with_default = replace(bundle, default_style=tuned)
    for text in ("", "  ", "Stained Glass"):
        assert find_style(with_default, text) is tuned
    assert find_style(with_default, "ukiyo-e").name == "ukiyo-e"
    with pytest.raises(ValueError, match="it has: stained glass"):
        find_style(with_default, "steel bridge")


def test_a_default_style_of_another_translator_is_refused(bundle):
    other = tiny.style(bundle.translator, "stained glass", "f" * 64)
    with pytest.raises(ValueError, match="tuned on another translator"):
        find_style(replace(bundle, default_style=other), "")


def test_a_style_can_be_a_file_but_not_of_another_translator(bundle, bundle_folder, half):
    file = str(bundle_folder / "styles" / "ukiyo-e.safetensors")
    assert find_style(bundle, file).name == "ukiyo-e"
    with pytest.raises(ValueError, match="tuned on another translator"):
        find_style(half, file)


def test_styles_are_listed_by_file_name(bundle):
    assert [style.name for style in stylerdalle.list_styles(bundle)] == ["ukiyo-e", "van-gogh"]


def test_a_bundle_is_loaded_once(bundle_folder):
    one, two = (load_bundle(bundle_folder, "cpu", "fp32") for _ in range(2))
    assert one.tokenizer is two.tokenizer
    assert one.translator is two.translator


def test_an_unknown_bundle_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'maxi' is not known"):
        load_bundle("maxi")
    with pytest.raises(ValueError, match=r"tokenizer.safetensors, clip.safetensors, translator.safetensors missing"):
        load_bundle(tmp_path)


@pytest.mark.parametrize("name", ["dalle", "rudalle"])
def test_an_official_bundle_says_which_files_are_missing_where_they_go_and_what_brings_them(tmp_path, monkeypatch, name):
    monkeypatch.setattr(bundles, "WEIGHTS", tmp_path)
    with pytest.raises(ValueError, match="is not complete") as caught:
        load_bundle(name)
    said = str(caught.value)
    assert f"{tmp_path / name} needs tokenizer.safetensors (`stylerdalle fetch {name}`), clip" in said
    assert "clip.safetensors (`stylerdalle fetch clip`), translator" in said
    preset = {"dalle": "paper-1", "rudalle": "paper-ru"}[name]
    assert "`stylerdalle prepare --tokenizer" in said and f"`stylerdalle pretrain --preset {preset} --tokenizer" in said
    assert "`stylerdalle convert translator" in said
    (tmp_path / name).mkdir()
    for part in ("tokenizer", "translator"):
        (tmp_path / name / f"{part}.safetensors").touch()
    with pytest.raises(ValueError, match=rf"{name} needs clip.safetensors \(`stylerdalle fetch clip`\)$"):
        load_bundle(name)


def test_an_official_bundle_is_opened_by_its_name_once_its_files_are_there(tmp_path, monkeypatch):
    monkeypatch.setattr(bundles, "WEIGHTS", tmp_path)
    tiny.write_bundle(tmp_path / "rudalle", upscale=2, tokens=tiny.vqgan())
    assert stylize(picture(33, 50), "van-gogh", load_bundle("rudalle", "cpu", "fp32")).shape == (1, 3, 33, 50)


def test_an_unknown_name_is_told_the_official_ones_too():
    with pytest.raises(ValueError, match="'maxi' is not known: dalle, .*rudalle"):
        load_bundle("maxi")


def test_models_that_do_not_belong_together_are_refused(bundle_folder, tmp_path):
    folder = tmp_path / "mixed"
    shutil.copytree(bundle_folder, folder)
    other = replace(tiny.translator(tiny.tokenizer()).config, embed_dim=17)
    checkpoint.save_translator(folder / "translator.safetensors", Translator(other))
    with pytest.raises(ValueError, match="do not belong together"):
        load_bundle(folder, "cpu", "fp32")


@pytest.mark.parametrize("device", ["cuda:99", "teapot"])
def test_a_device_that_is_not_there_is_refused(device):
    with pytest.raises(ValueError, match="cannot be used here"):
        choose_device(device)


def test_an_unknown_dtype_is_refused():
    with pytest.raises(ValueError, match="fp32, bf16, fp16"):
        choose_dtype(torch.device("cpu"), "int8")


def test_tokens_of_another_tokenizer_or_scale_are_refused(bundle, half):
    tokens = encode(bundle.tokenizer, picture(32, 32))
    with pytest.raises(ValueError, match="vocabulary of 999"):
        decode(bundle.tokenizer, replace(tokens, vocab_size=999))
    with pytest.raises(ValueError, match="tokenize for this translator"):
        translate(half.translator, half.tokenizer, tokens, [])


def test_progress_counts_all_three_steps(bundle):
    calls = []
    stylize(picture(64, 64, batch=2), "ukiyo-e", bundle, progress=lambda *call: calls.append(call))
    shares = [done / total for done, total in calls]
    assert shares == sorted(shares) and calls[-1][0] == calls[-1][1]
    ends = [sum(STEPS[:k]) / sum(STEPS) for k in range(len(STEPS) + 1)]
    for low, high in itertools.pairwise(ends):  # within each step, and at its end
        assert any(low < share < high for share in shares) and high in shares


@pytest.mark.parametrize("step", range(len(STEPS)))
def test_a_raise_in_progress_cancels_each_of_the_three_steps(bundle, monkeypatch, step):
    later = [("encode", "translate", "decode")[k] for k in range(step + 1, 3)]
    for name in later:
        monkeypatch.setattr(f"stylerdalle.pipeline.{name}", lambda *_, **__: pytest.fail("not cancelled"))

    def stop(done: int, total: int) -> None:
        if done / total > sum(STEPS[:step]) / sum(STEPS):
            raise InterruptedError

    with pytest.raises(InterruptedError):
        stylize(picture(64, 64, batch=2), "ukiyo-e", bundle, progress=stop)


def test_bf16_gives_a_picture_too(bundle_folder):
    out = stylize(picture(40, 40), "ukiyo-e", load_bundle(bundle_folder, "cpu", "bf16"))
    assert out.dtype == torch.float32
    assert out.isfinite().all()


@pytest.mark.parametrize("detail", [0.25, 0.7, 2, 4])
def test_another_detail_comes_back_in_the_pictures_size(bundle, half, detail):
    for opened in (bundle, half):
        images = picture(41, 66, channels=4)
        out = stylize(images, "ukiyo-e", opened, detail=detail)
        assert out.shape == images.shape and torch.equal(out[:, 3], images[:, 3])


def test_detail_2_shows_what_a_picture_of_twice_the_size_would_show_made_smaller(bundle):
    images = picture(40, 48)
    large = torch.nn.functional.interpolate(images, (80, 96), mode="bicubic", antialias=True).clamp(0, 1)
    painted = stylize(large, "ukiyo-e", bundle, keep_lines=0)
    small = torch.nn.functional.interpolate(painted, (40, 48), mode="bicubic", antialias=True)
    assert torch.allclose(stylize(images, "ukiyo-e", bundle, detail=2, keep_lines=0), small.clamp(0, 1), atol=1e-4)


def test_tiles_of_another_detail_have_no_seams(bundle, monkeypatch):
    images = picture(150, 170)
    tokens = encode(bundle.tokenizer, images, detail=1.4)
    whole = decode(bundle.tokenizer, tokens)
    monkeypatch.setattr(codec, "TILE_TOKENS", 8)
    assert torch.equal(encode(bundle.tokenizer, images, detail=1.4).grid, tokens.grid)
    assert torch.allclose(decode(bundle.tokenizer, tokens), whole, atol=1e-5)


@pytest.mark.parametrize(("detail", "says"), [(0, "detail 0 is not possible"), (float("nan"), "nan"), (300, "at most 16384 px")])
def test_a_detail_that_cannot_be_is_refused(bundle, detail, says):
    with pytest.raises(ValueError, match=says):
        stylize(picture(32, 64), "ukiyo-e", bundle, detail=detail)


def test_a_picture_too_large_for_details_above_1_is_still_made_at_1(bundle):
    assert stylize(picture(2, 16400), "ukiyo-e", bundle).shape == (1, 3, 2, 16400)


def test_every_picture_gets_the_same_noise(bundle):
    same = picture(40, 48).expand(3, -1, -1, -1)
    first, second, third = stylize(same, "ukiyo-e", bundle, sampling=Sampling(2.0, seed=3))
    assert torch.equal(first, second) and torch.equal(first, third)


def test_steady_frames_need_frames_that_were_tokenized_together(bundle):
    tokens = replace(encode(bundle.tokenizer, picture(32, 32, batch=2)), photo=None)
    with pytest.raises(ValueError, match="tokenize all frames together"):
        translate(bundle.translator, bundle.tokenizer, tokens, [], TranslateOptions(steady=0.5))


def test_tokens_of_one_kind_can_be_joined(bundle):
    one, two = (encode(bundle.tokenizer, picture(24, 32, 3, batch), torch.rand(batch, 1, 24, 32)) for batch in (1, 2))
    both = joined([one, two])
    assert torch.equal(both.grid, torch.cat([one.grid, two.grid])) and both.mixture is None
    assert decode(bundle.tokenizer, both).shape == (3, 4, 24, 32)


def panned(frames: int) -> torch.Tensor:
    """Frames (B, 3, 48, 64) of a camera that moves over a smooth scene."""
    coarse = torch.rand(1, 3, 8, 24, generator=torch.Generator().manual_seed(0))
    scene = torch.nn.functional.interpolate(coarse, (64, 192), mode="bicubic").clamp(0, 1)
    return torch.cat([scene[..., 8:56, 2 * i : 2 * i + 64] for i in range(frames)])


def test_frames_in_parts_are_as_those_together(bundle):
    frames = panned(6)
    together = stylize(frames, "ukiyo-e", bundle, steady=0.7)
    history = History(0.7)
    apart = torch.cat([stylize(part, "ukiyo-e", bundle, history=history) for part in frames.split([1, 3, 2])])
    assert torch.equal(together, apart)
    assert not torch.equal(together, stylize(frames, "ukiyo-e", bundle))
    opened = encode(bundle.tokenizer, frames)
    styles, options = [(find_style(bundle, "ukiyo-e"), 1.0)], TranslateOptions(steady=0.7)
    at_once = translate(bundle.translator, bundle.tokenizer, opened, styles, options)
    assert torch.equal(add_lines(decode(bundle.tokenizer, at_once), frames), together)


def test_lines_of_the_photo_are_added_with_strength_and_inside_the_mask(bundle):
    images = picture(64, 64, channels=4)
    without, whole = (stylize(images, "ukiyo-e", bundle, keep_lines=k) for k in (0, LINES))
    assert torch.equal(whole, stylize(images, "ukiyo-e", bundle))
    torch.testing.assert_close(whole, add_lines(without.clone(), images, LINES, seed=0))
    assert torch.equal(*(stylize(images, "ukiyo-e", bundle, strength=0, keep_lines=k) for k in (0, 1)))
    mask = torch.zeros(1, 64, 64)
    mask[..., :32] = 1
    plain, lined = (stylize(images, "ukiyo-e", bundle, mask=mask, keep_lines=k) for k in (0, 1))
    assert torch.equal(plain[..., 32:], lined[..., 32:]) and not torch.equal(plain[..., :32], lined[..., :32])
    with pytest.raises(ValueError, match="lines 2.0 is out of range"):
        stylize(images, "ukiyo-e", bundle, keep_lines=2)


def test_versions_of_frames_do_not_mix(bundle):
    tokens, styles = encode(bundle.tokenizer, panned(2)), [(find_style(bundle, "ukiyo-e"), 1.0)]
    made = translate(bundle.translator, bundle.tokenizer, tokens, styles, TranslateOptions(steady=1))
    both = decode(bundle.tokenizer, joined([made, made]))
    assert torch.equal(both[:2], both[2:])


def test_a_long_video_needs_no_more_memory_than_a_short_one(bundle):
    history, held = History(0.7), []
    for part in itertools.islice(itertools.cycle(panned(6).split(2)), 12):
        stylize(part, "ukiyo-e", bundle, history=history)
        gc.collect()
        storages = [some.untyped_storage() for some in gc.get_objects() if type(some) is torch.Tensor]
        held.append(sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values()))
    assert max(held[6:]) <= 1.01 * max(held[:6])


def test_masks_of_many_pictures_stay_with_them(bundle):
    images, masks = picture(16, 24, batch=6), torch.zeros(6, 16, 24)
    masks[5] = 1
    out = stylize(images, "ukiyo-e", bundle, mask=masks)
    assert torch.equal(out[5:], stylize(images[5:], "ukiyo-e", bundle))
    assert torch.equal(out[:5], stylize(images[:5], "ukiyo-e", bundle, strength=0))
