"""Models in ComfyUI's memory, tested with whole prompts: loaded once, shared, reloaded when a file changes, freed on request."""

import gc
import json
import shutil
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch

from stylerdalle import checkpoint, storage

Graph = dict[str, dict[str, Any]]


class Server:
    """The part of ComfyUI's server that the executor uses; no client is connected."""

    client_id = last_node_id = None

    def send_sync(self, *_: object) -> None:
        pass


@pytest.fixture
def executor(comfy: SimpleNamespace) -> Iterator[Any]:
    import execution

    comfy.model_management.unload_all_models()
    gc.collect()  # as ComfyUI does then
    made = new_executor(execution.PromptExecutor)
    yield made
    made.reset()


def new_executor(kind: Callable[[Server], Any]) -> Any:
    made = kind(Server())
    made.cache_args = {"lru": 0, "ram": 0.0, "ram_inactive": 0.0}  # read by newer hosts
    return made


@pytest.fixture
def loads(comfy: SimpleNamespace, caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """A function that returns the names of the files loaded since its last call."""
    caplog.set_level("INFO")

    def since() -> list[str]:
        names = [r.args[0] for r in caplog.records if r.msg.startswith("loaded ") and r.args]
        caplog.clear()
        return sorted(Path(str(name)).stem for name in names)

    return since


def graph(bundle: str = "tiny", prompt: str = "van-gogh", size: int = 64, frames: int = 1, **translate: Any) -> Graph:
    fixed = {"strength": 1.0, "temperature": 0.0, "top_k": 0, "seed": 0, "softness": 0.5}
    return {
        "1": {"class_type": "StylerDALLE_Load", "inputs": {"bundle": bundle}},
        "2": {"class_type": "EmptyImage", "inputs": {"width": size, "height": size, "batch_size": frames, "color": 255}},
        "3": {"class_type": "StylerDALLE_Tokenize", "inputs": {"tokenizer": ["1", 0], "image": ["2", 0]}},
        "4": {
            "class_type": "StylerDALLE_Translate",
            "inputs": {"translator": ["1", 1], "tokens": ["3", 0], "prompt": prompt, **fixed, **translate},
        },
        "5": {"class_type": "StylerDALLE_Detokenize", "inputs": {"tokenizer": ["1", 0], "tokens": ["4", 0]}},
        "6": {"class_type": "StylerDALLE_Reward", "inputs": {"reward": ["1", 2], "image": ["5", 0], "text": "a mosaic"}},
    }


def queue(executor: Any, prompt: Graph) -> dict[str, Any]:
    """Run a prompt -> the outputs of its nodes in the history."""
    executor.execute(prompt, "a prompt", execute_outputs=["6"])
    assert executor.success, executor.status_messages[-1]
    found: dict[str, Any] = json.loads(json.dumps(executor.history_result["outputs"]))  # as the server sends it
    return found


def test_every_model_is_under_a_model_patcher(run: Callable[..., tuple[Any, ...]]) -> None:
    from comfy.model_patcher import ModelPatcher

    bundle = run("StylerDALLE_Load", bundle="prompted")[0]
    (tokens,) = run("StylerDALLE_Tokenize", tokenizer=bundle, image=torch.rand(1, 32, 32, 3))
    run("StylerDALLE_Translate", translator=bundle, tokens=tokens, prompt="a mosaic")
    assert any(isinstance(value, ModelPatcher) for value in bundle.load.held.values())
    kinds = {key[0].__name__: type(value) for key, value in bundle.load.held.items()}
    models = {"load_tokenizer", "load_translator", "load_clip", "load_hypernetwork"}
    assert {name for name, kind in kinds.items() if issubclass(kind, ModelPatcher)} == models
    assert set(kinds) - models == {"load_style"}


def test_a_second_run_loads_nothing_and_two_workflows_share_one_copy(
    comfy: SimpleNamespace, executor: Any, loads: Callable[[], list[str]]
) -> None:
    queue(executor, graph())
    assert {"tokenizer", "translator", "clip"} <= set(loads())
    queue(executor, graph(seed=1, temperature=1.0))
    assert loads() == []
    other = new_executor(type(executor))  # with its own, empty cache of node outputs
    queue(other, graph(prompt="ukiyo-e"))
    assert loads() == [] and len(comfy.model_management.current_loaded_models) == 3


def test_a_changed_file_is_loaded_anew(comfy: SimpleNamespace, executor: Any, loads: Callable[[], list[str]]) -> None:
    def bias() -> float:
        models = [loaded.model.model for loaded in comfy.model_management.current_loaded_models]
        return float(next(model.outNet.bias.float().sum() for model in models if hasattr(model, "outNet")))

    folder = comfy.base / "models" / "stylerdalle" / "changing"
    shutil.copytree(folder.with_name("tiny"), folder)
    try:
        queue(executor, graph("changing"))
        assert "translator" in loads() and bias() == 0
        model = tiny.translator(tiny.tokenizer())
        model.outNet.bias += 1
        checkpoint.save_translator(folder / "translator.safetensors", model, licence="MIT")
        base = storage.sha256(folder / "translator.safetensors")
        checkpoint.save_style(folder / "styles" / "van-gogh.safetensors", tiny.style(model, "van-gogh", base))
        queue(executor, graph("changing"))
        assert "translator" in loads() and bias() > 0
    finally:
        shutil.rmtree(folder)


def test_free_gives_the_memory_back(comfy: SimpleNamespace, executor: Any) -> None:
    queue(executor, graph())
    models = [weakref.ref(loaded.model.model) for loaded in comfy.model_management.current_loaded_models]
    assert len(models) == 3 and None not in [model() for model in models]
    comfy.model_management.unload_all_models()  # as ComfyUI does for POST /free {"free_memory": true}
    executor.reset()
    gc.collect()
    assert [model() for model in models] == [None] * 3


def test_free_gives_back_what_style_transfer_and_load_share(comfy: SimpleNamespace, executor: Any) -> None:
    alone = {"class_type": "StylerDALLE_Stylize", "inputs": {"image": ["2", 0], "style": "van-gogh", "bundle": "tiny"}}
    widgets = {"strength": 1.0, "seed": 0}
    executor.execute({"2": graph()["2"], "6": {**alone, "inputs": {**alone["inputs"], **widgets}}}, "p", execute_outputs=["6"])
    assert executor.success, executor.status_messages[-1]
    queue(executor, graph())
    models = [weakref.ref(loaded.model.model) for loaded in comfy.model_management.current_loaded_models]
    assert len(models) == 3
    comfy.model_management.unload_all_models()
    executor.reset()
    gc.collect()
    assert [model() for model in models] == [None] * 3


def test_the_history_has_style_seed_and_score(executor: Any) -> None:
    history = queue(executor, graph("prompted", "a mosaic", temperature=1.0, seed=2**64 - 1, candidates=2))
    assert history["4"]["style"] == ["a mosaic"] and history["4"]["near"] == ["1.00 near to 'a mosaic'"]
    assert history["4"]["seed"] == [2**64 - 1, 0]
    scores = history["6"]["scores"]
    assert len(scores) == 2 and history["6"]["score"] == [pytest.approx(sum(scores) / 2)]
    assert queue(executor, graph())["4"]["near"] == [None]  # a tuned style, not made by the network
