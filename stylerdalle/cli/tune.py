"""The command `tune`: learn one style, or with --styles a network that makes a style from any prompt."""

from __future__ import annotations

import argparse
import logging
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import storage
from ..distributed import processes
from ..training.filter_names import FILTERED
from ..training.options import AmortiseConfig
from ..translator.sizes import HyperConfig
from ..tune import presets
from ..tune.config import TuneConfig
from .console import bar
from .options import add_config_options, add_model_options, add_preset_option, add_run_options, given_options, number

if TYPE_CHECKING:
    from torch import Tensor

    from ..bundle import Bundle
    from ..learn.pictures import Picture
    from ..translator.style import Style
    from ..translator.texture import Texture
    from ..tune.exemplars import Exemplars
    from ..tune.loop import TuneState

log = logging.getLogger(__name__)
LIBRARY, NO_EXEMPLARS = "library", "none"  # words in place of pictures in --exemplars
NEAREST, NO_START = "nearest", "none"  # words in place of a style in --start


def tune_options(parser: argparse.ArgumentParser) -> None:
    goal = parser.add_mutually_exclusive_group(required=True)
    goal.add_argument("--style", metavar="TEXT", help="prompt of the new style")
    goal.add_argument(
        "--styles",
        type=Path,
        metavar="FILE",
        help="instead of one style, learn a network that makes a style from any prompt; FILE lists the prompts to train on",
    )
    parser.add_argument("--name", help="name of the style (default: the output file's)")
    parser.add_argument(
        "--start",
        metavar="STYLE",
        help="style to start from: its name, prompt or file; its rank must be --rank; `nearest`: the bundled style that is "
        "nearest to the pictures in --exemplars, the default with them; `none`: no style",
    )
    add_run_options(parser, "tune-STYLE")
    parser.add_argument(
        "--save-every",
        type=number(float, 0),
        default=30.0,
        metavar="SECONDS",
        help="time between saves of the run's state (default: 30)",
    )
    add_model_options(parser)
    add_preset_option(parser)
    parser.add_argument(
        "--exemplars",
        nargs="+",
        metavar="PATH",
        help="pictures of the style, or folders of them: the reward then also compares the style with theirs (--style-weight, "
        "--layout-weight, --exemplar-size); `library`: the works of the bundle's library that are nearest to the prompt, the "
        "default where the prompt alone says what the style is (no --pairs, and not with reinforce); `none`: no pictures",
    )
    add_pairs_options(parser.add_argument_group("pairs of photos and styled photos"))
    add_config_options(parser.add_argument_group("tuning"), TuneConfig)
    add_network_options(parser)
    parser.set_defaults(run=lambda args: run_tune_network(args) if args.styles else run_tune(args))


def add_pairs_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--pairs",
        metavar="DIR|FILTER",
        help="source of pairs for --pairs-steps and --pairs-weight: a folder with DIR/photos/NAME.jpg and DIR/styled/NAME.jpg, "
        f"or the name of a filter that makes them from the photos ({', '.join(FILTERED)})",
    )
    group.add_argument(
        "--pairs-count",
        type=number(int, 1, 100_000),
        default=1200,
        metavar="N",
        help="crops made of the pairs (default: 1200)",
    )


def add_network_options(parser: argparse.ArgumentParser) -> None:
    known = [field.name for field in fields(TuneConfig)]
    group = parser.add_argument_group(
        "with --styles",
        "Of the tuning options above, only --steps, --batch, --lr, --seed and --rank apply too, with other defaults.",
    )
    group.add_argument(
        "--painted",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="pairs that stylerdalle.training.teacher_pairs wrote; a style that several files have takes those of the last; "
        "filters make what they lack",
    )
    add_config_options(group, AmortiseConfig, known)
    add_config_options(group, HyperConfig, [*known, "embed_dim"])


def run_tune(args: argparse.Namespace) -> int:
    from .. import checkpoint
    from ..bundle import load_bundle
    from ..images.files import check_output
    from ..learn.run import tensors_sha256
    from ..learn.sources import checked, read_pictures
    from ..resolve import check_prompt, warn_of_unknown_words
    from ..tune.library import learn_others
    from ..tune.loop import tune
    from .training import bundle_inputs, check_start, final_output, open_run, print_output, recipe

    prompt = check_prompt(args.style)
    given = presets.tune_options(args.preset, given_options(args, TuneConfig))
    config = TuneConfig.of(given.pop("method", TuneConfig.method), **given)
    output = check_start(args, args.start, *(args.exemplars or []))
    photos = checked(read_pictures(args.images))
    bundle = load_bundle(args.bundle, args.device, weights_dtype(args.dtype))
    check_output(output, args.overwrite, (".safetensors",), bundle.files)
    warn_of_unknown_words(bundle.clip_path, prompt)
    exemplars, origin = find_exemplars(args, prompt, bundle, config)
    if exemplars:
        learn_others(exemplars, bundle, photos, config)
    start = find_start(args, bundle, exemplars, photos, config)
    with bar(f"tune {prompt!r}") as progress:

        def callback(state: TuneState) -> None:
            progress(state.step, state.steps)

        pairs, texture = read_or_make_pairs(args, photos, bundle, config.seed)
        made_of = [*(pairs or ()), *([texture.tokens, texture.weights] if texture else [])]
        inputs = {"pairs": tensors_sha256(made_of), "start": tensors_sha256(start.all_tensors() if start else [])}
        run = open_run(args, f"tune-{storage.slug(prompt, 60)}", photos, **bundle_inputs(bundle), **inputs)
        tuned = tune(
            bundle.tokenizer,
            bundle.translator,
            bundle.clip,
            photos,
            prompt,
            config,
            run,
            pairs,
            callback,
            minutes_between_saves=args.save_every / 60,
            start=start,
            texture=texture,
            exemplars=exemplars,
            reduced=args.dtype != "fp32",
        )
    if not processes().main:
        return 0
    made = {"pairs": args.pairs, "pairs_count": args.pairs_count} if args.pairs else {}
    made |= {"start": start.name} if start else {}
    made |= origin
    output = final_output(args, output)
    style = replace(tuned.style, name=args.name or output.stem, base_sha256=storage.sha256(bundle.translator_path))
    checkpoint.save_style(output, style, recipe={**recipe(args, config), **made}, **tuned.notes())
    first, best = tuned.held_out
    print(f"held-out score {first:.3f} at the start, {best:.3f} at step {tuned.best_step} of {tuned.steps}, which is kept")
    return print_output(output)


def weights_dtype(dtype: str) -> str:
    """The precision of the models that --dtype asks for: with auto float32, in which only products are rounded to bfloat16.

    Raises:
        ValueError: fp16.
    """
    if dtype == "fp16":
        raise ValueError("tune cannot compute in fp16, gradients would vanish: use --dtype bf16 to save memory, fp32, or auto")
    return "bf16" if dtype == "bf16" else "fp32"


def find_exemplars(
    args: argparse.Namespace, prompt: str, bundle: Bundle, config: TuneConfig
) -> tuple[Exemplars | None, dict[str, Any]]:
    """The exemplars of --exemplars or of the bundle's library, or None; and what the recipe says of them.

    Raises:
        ValueError: `--exemplars library`, and the library has no work near to the prompt.
    """
    import numpy as np

    from ..learn.crops import to_tensor
    from ..learn.sources import checked, read_pictures
    from ..tune.exemplars import Exemplars
    from ..tune.library import answers, library_exemplars, recipe_of, used_works

    given = args.exemplars or []
    if given == [NO_EXEMPLARS] or not (given or (answers(config) and not args.pairs)):
        return None, {}
    if given and given != [LIBRARY]:
        shown = checked(read_pictures(given))
        pixels = [to_tensor([np.asarray(picture.open())]) for picture in shown]  # (1, 3, H, W) each
        return Exemplars(bundle.features, pixels, config.exemplar_size), {"exemplars": [picture.key for picture in shown]}
    found = used_works(bundle, prompt)
    if given and not found:
        raise ValueError(
            f"the library of the bundle {bundle.name!r} has no work near to {prompt!r}: use words for an artist, a movement or a "
            "medium (`stylerdalle styles --works` lists them), give pictures, or leave out --exemplars"
        )
    return library_exemplars(bundle.features, found, config.exemplar_size) if found else None, recipe_of(found)


def find_start(
    args: argparse.Namespace, bundle: Bundle, exemplars: Exemplars | None, photos: list[Picture], config: TuneConfig
) -> Style | None:
    """The style of --start; with pictures in --exemplars and no pairs, by default the bundled one nearest to them.

    Raises:
        ValueError: `--start nearest` without exemplars, or as `find_style`.
    """
    from ..resolve import find_style
    from ..tune.start import nearest_style

    own = bool(args.exemplars) and args.exemplars[0] not in (LIBRARY, NO_EXEMPLARS) and not args.pairs
    given = args.start or (NEAREST if own else NO_START)
    if given == NO_START:
        return None
    if given != NEAREST:
        return find_style(bundle, given)
    if not exemplars:
        raise ValueError("--start nearest needs pictures of the style to be near to: give --exemplars, or a style to start from")
    with bar("nearest style") as progress:
        found = nearest_style(bundle, exemplars, photos, config.rank, progress)
    log.info("start from %s, whose pictures are nearest to the exemplars", found.name if found else "no style")
    return found


def read_or_make_pairs(
    args: argparse.Namespace, photos: list[Picture], bundle: Bundle, seed: int
) -> tuple[tuple[Tensor, Tensor, Tensor] | None, Texture | None]:
    """(the pairs of --pairs as read_pairs gives them, the texture of their filter), each None where there is none."""
    from ..learn.pairs import read_pairs
    from ..training.pairs import coded_texture, make_pairs
    from ..training.registry import style_name

    downsample = bundle.tokenizer.downsample
    window = downsample * bundle.translator.config.grid * bundle.translator.config.upscale  # px
    if style_name(args.pairs or "") in FILTERED:
        pairs = make_pairs(photos, args.pairs, window, args.pairs_count, seed, downsample)
        return pairs, coded_texture(bundle.tokenizer, args.pairs)
    return read_pairs(args.pairs, window, args.pairs_count, seed) if args.pairs else None, None


def run_tune_network(args: argparse.Namespace) -> int:
    import hashlib

    from .. import checkpoint
    from ..bundle import load_bundle
    from ..images.files import check_output
    from ..learn.run import tensors_sha256
    from ..resolve import list_styles
    from ..training.amortise import amortise
    from ..training.prompts import read_prompts
    from ..training.styles import large_photos
    from ..training.teacher_pairs import read_painted
    from .training import bundle_inputs, check_start, final_output, open_run, print_output, read_split, recipe

    if args.dtype != "auto":
        raise ValueError("--dtype cannot be used with --styles: leave it out")
    if args.preset:
        raise ValueError("--preset cannot be used with --styles: leave it out")
    given, sizes = given_options(args, AmortiseConfig), given_options(args, HyperConfig)
    own = [name for name in ("name", "start", "pairs", "exemplars") if getattr(args, name)]
    if unused := own + [name for name in given_options(args, TuneConfig) if name not in given and name not in sizes]:
        options = ", ".join("--" + name.replace("_", "-") for name in unused)
        raise ValueError(f"{options} cannot be used with --styles: leave it out")
    prompts = read_prompts(args.styles)
    output = check_start(args, args.styles, *args.painted)
    pictures, _ = read_split(args.images)
    bundle = load_bundle(args.bundle, args.device, "fp32")
    check_output(output, args.overwrite, (".safetensors",), bundle.files)
    origin = {"prompts": hashlib.sha256(repr(prompts).encode()).hexdigest()}
    origin["painted pairs"] = " ".join(storage.sha256(path) for path in args.painted)
    styles = list_styles(bundle)
    origin["styles"] = tensors_sha256(tensor for style in styles for tensor in style.all_tensors())
    run = open_run(args, f"tune-{args.styles.stem}", pictures, **bundle_inputs(bundle), **origin)
    art = [picture for picture in pictures if picture.kind in ("art", "graphic")]
    photos = [picture for picture in pictures if picture.kind not in ("art", "graphic")]
    config = AmortiseConfig(**given)
    width = bundle.clip.text_projection.shape[1]
    with bar(f"tune {len(prompts)} prompts") as progress:
        network = amortise(
            bundle.tokenizer,
            bundle.translator,
            bundle.clip,
            large_photos(photos) + photos[::20],
            art,
            prompts,
            config,
            HyperConfig(**{"embed_dim": width, **sizes}),
            run,
            styles,
            lambda step, _: progress(step, config.steps),
            painted=read_painted(args.painted),
        )
    if not processes().main:
        return 0
    output = final_output(args, output)
    checkpoint.save_hypernetwork(output, network, bundle.translator_path, bundle.clip_path, recipe=recipe(args, config))
    return print_output(output)
