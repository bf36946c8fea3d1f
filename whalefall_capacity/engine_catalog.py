"""The engines that are known here: those with modules of their own, and those with an engine file.

An engine file is named after its engine, so that engines are known without reading a file: it is read for the engines
that the fleet has. Of several files for one engine, the first that WHALEFALL_ENGINES names wins, then that of another
package, then the one shipped here.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from whalefall_capacity.collection.sizes import ENGINE_FILE_SUFFIX, ENGINE_NAME, TAKEN_NAMES, ServerEngine
from whalefall_capacity.errors import EngineFileError
from whalefall_capacity.settings import PREFIX, load_settings

SHIPPED = Path(__file__).resolve().parent / "collection" / "engines"
# `firebird = "acme_capacity.engines"`: firebird.yaml lies in the folder of that package.
ENTRY_POINTS = "whalefall_capacity.engines"
BUILT_IN = "built in"


def known_engines() -> Mapping[str, str]:
    """Return where each engine comes from: built in, its file, or the package that has its file."""
    origins = sorted(_origins().items())
    shown = {name: origin.value if isinstance(origin, EntryPoint) else str(origin) for name, origin in origins}
    return {engine.value: BUILT_IN for engine in ServerEngine} | shown


def engine_file(name: str) -> Path | None:
    """Return the file of an engine, None for one with a module of its own. Raises EngineFileError for other names."""
    if name in set(ServerEngine):
        return None
    origin = _origins().get(name)
    if origin is None:
        raise EngineFileError(f"engine {name} is not known here: it must be {known_engines_in_words()}")
    return _file_in_package(origin) if isinstance(origin, EntryPoint) else origin


def known_engines_in_words() -> str:
    """Return the known engines, and what adds others, for an error."""
    return f"one of {', '.join(known_engines())}; {PREFIX}ENGINES adds others"


def default_port(name: str) -> int:
    """Return the port of an engine where the fleet file names none. Raises EngineFileError."""
    file = engine_file(name)
    if file is None:
        return ServerEngine(name).default_port
    # Not every fleet has an engine with a file.
    from whalefall_capacity.collection.sql.engine_file import read_engine_file

    return read_engine_file(file).default_port


def _origins() -> dict[str, Path | EntryPoint]:
    """Return the file of each engine, or the entry point that names its package; what comes last wins."""
    configured = [file for place in load_settings().engines for file in _files_in(place)]
    found: dict[str, Path | EntryPoint] = {file.stem: file for file in _files_in(SHIPPED)}
    found.update(_packages())
    found.update({file.stem: file for file in reversed(configured)})
    return {name: origin for name, origin in found.items() if re.match(ENGINE_NAME, name) and name not in TAKEN_NAMES}


def _files_in(place: Path) -> list[Path]:
    return [place] if place.is_file() else sorted(place.glob(f"*{ENGINE_FILE_SUFFIX}"))


# What is installed stays as it is while a process runs; to look takes 30 ms.
@lru_cache(maxsize=1)
def _packages() -> Mapping[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def _file_in_package(point: EntryPoint) -> Path:
    try:
        found = importlib.util.find_spec(point.value)
    except ImportError:
        found = None
    folders = found.submodule_search_locations if found else None
    if not folders:
        raise EngineFileError(f"engine {point.name}: its entry point names {point.value}, which is no package here")
    return Path(next(iter(folders))) / f"{point.name}{ENGINE_FILE_SUFFIX}"
