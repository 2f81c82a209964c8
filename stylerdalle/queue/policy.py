"""Settings of a batch. They stand apart from batch.py so that `stylerdalle queue --help` loads no aiohttp."""

from __future__ import annotations

from dataclasses import dataclass

from ..settings import check_finite, setting


@dataclass(frozen=True)
class Policy:
    """How a batch uses its servers. Raises ValueError for a value out of range."""

    in_flight: int = setting(2, "photos on a server at a time: one runs, the others wait in its queue")
    tries: int = setting(3, "attempts per photo when servers are lost; a photo that fails is tried once on each server")
    wait: float = setting(120.0, "seconds to wait for a lost server when no other server can do its photos")
    poll: float = setting(2.0, "seconds between checks of a run that sends no news")

    def __post_init__(self) -> None:
        check_finite(self)
        for name, value in (("in_flight", self.in_flight), ("tries", self.tries)):
            if value < 1:
                raise ValueError(f"{name} is {value}: it must be 1 or more")
        if not self.wait >= 0 or not self.poll > 0:
            raise ValueError(f"wait is {self.wait} and poll {self.poll}: wait must be 0 or more seconds, poll more than 0")
