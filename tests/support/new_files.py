"""A file of a new metric, identifier, attack or benchmark, put into its room for one test."""

import contextlib
import sys

from tif.config import registry
from tif.metrics import registry as metric_registry


@contextlib.contextmanager
def put_into_room(monkeypatch, folder, package, name, text):
    """Let `package` hold the module `name` too; what it registers goes with it."""
    for kind, (room, _) in registry.KINDS.items():
        if room == package.__name__:
            monkeypatch.setitem(registry.TABLES, kind, registry.entries(kind))
    if metric_registry.__package__ == package.__name__:
        monkeypatch.setattr(metric_registry, "METRICS", dict(metric_registry.all_metrics()))
    (folder / "room").mkdir()
    (folder / "room" / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder / "room")])
    caches = (registry._import_modules, metric_registry._import_files)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()
    sys.modules.pop(f"{package.__name__}.{name}", None)
