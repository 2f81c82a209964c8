"""The targets by name, each as a context in which it can be called."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from fuzz.harness import Target
from fuzz.models import models
from fuzz.pickles import pickles
from fuzz.pictures import pictures
from fuzz.texts import texts
from fuzz.workflows import workflows

TARGETS: dict[str, Callable[[], AbstractContextManager[Target]]] = {
    "pictures": lambda: nullcontext(pictures),
    "models": lambda: nullcontext(models),
    "texts": lambda: nullcontext(texts),
    "pickles": lambda: nullcontext(pickles),
    "workflows": workflows,
}
