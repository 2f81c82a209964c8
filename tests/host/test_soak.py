"""A short version of `make soak`: 32 prompts from four clients, and the host is killed and started again midway."""

from pathlib import Path
from types import SimpleNamespace

from host import soak
from tiny import write_bundle, write_hypernetwork


def test_every_prompt_of_a_short_load_ends_as_it_should(comfy: SimpleNamespace, tmp_path: Path) -> None:
    write_hypernetwork(write_bundle(tmp_path / "models" / "stylerdalle" / "tiny"))
    load = soak.Soak(tmp_path, "tiny")
    try:
        told: list[str] = []
        problems = soak.run(load, 32, 4, told.append)
    finally:
        load.server.kill()
    # memory is judged by the long run: the first prompts of a process fill its caches
    assert not [problem for problem in problems if not problem.startswith("memory")], told
    assert load.ended.total() == 32
    assert load.again and load.ended["good: success"] > 10
