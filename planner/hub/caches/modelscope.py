"""The cache of ModelScope: four layouts that its releases have used, of which one writes ``___`` for a dot.

``models/owner--name/snapshots/<revision>/…`` is the newest; before it ``models/owner/name/…``, the same below
``hub/``, and ``owner/name/…`` without ``models``. A file that is still arriving ends in
``.incomplete`` or lies in ``._____temp``.
"""

import os
from pathlib import Path

from planner.hub.caches.walk import Walk
from planner.hub.names import artifacts_of, is_model_file
from planner.types.artifact import LocalModel, Part

__all__ = ["models_in", "roots"]

_NO_OWNERS = {"hub", "models", "datasets", "studios", "mcps", "skills"}


def roots() -> list[Path]:
    """The folder of the cache: MODELSCOPE_CACHE, else the one below the home folder."""
    named = os.environ.get("MODELSCOPE_CACHE")
    return [Path(named or "~/.cache/modelscope").expanduser()]


def models_in(root: Path, walk: Walk) -> list[LocalModel]:
    """The models of every repository in the cache."""
    found: list[LocalModel] = []
    for base in (root, root / "hub"):
        for owner in (*walk.folders(base / "models"), *walk.folders(base)):
            if owner.name.startswith("."):
                continue
            if "--" in owner.name and owner.parent.name == "models":
                found += _snapshots(owner, walk)
            elif owner.name not in _NO_OWNERS:
                for name in walk.folders(owner):
                    if not name.name.startswith("."):
                        found += _in_folder(name, f"{owner.name}/{name.name.replace('___', '.')}", walk)
    return found


def _snapshots(folder: Path, walk: Walk) -> list[LocalModel]:
    repo = folder.name.replace("--", "/", 1)
    found: list[LocalModel] = []
    for snapshot in walk.folders(folder / "snapshots"):
        found += _in_folder(snapshot, repo, walk)
    return found


def _in_folder(folder: Path, repo: str, walk: Walk) -> list[LocalModel]:
    parts: list[Part] = []
    for file in walk.files(folder):
        path = file.relative_to(folder).as_posix()
        if is_model_file(path) and (part := walk.part(file, path)) is not None:
            parts.append(part)
    return [
        LocalModel(source="modelscope", name=f"{repo}/{artifact.name}", artifact=artifact, hub="ms", repo=repo)
        for artifact in artifacts_of(parts, hub="ms", repo=repo)
    ]
