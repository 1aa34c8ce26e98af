"""The models of LM Studio: plain folders ``publisher/repository/file.gguf``, named as on Hugging Face.

The home folder may have moved; a file in the user's home says where to.
"""

from pathlib import Path

from planner.hub.caches.walk import Walk
from planner.hub.names import artifacts_of, is_model_file
from planner.types.artifact import LocalModel, Part

__all__ = ["models_in", "roots"]


def roots() -> list[Path]:
    """The folders of models: the home of LM Studio, wherever it is, and the place that older releases used."""
    home = Path("~").expanduser()
    homes = [home / ".lmstudio", home / ".cache" / "lm-studio"]
    try:
        moved = (home / ".lmstudio-home-pointer").read_text(encoding="utf-8")[:4096].strip()
    except (OSError, UnicodeDecodeError):
        moved = ""
    if moved and moved.isprintable():
        homes.insert(0, Path(moved).expanduser())
    return [folder / "models" for folder in dict.fromkeys(homes)]


def models_in(root: Path, walk: Walk) -> list[LocalModel]:
    """The models of every publisher."""
    found: list[LocalModel] = []
    for publisher in walk.folders(root):
        for folder in walk.folders(publisher):
            repo = f"{publisher.name}/{folder.name}"
            parts: list[Part] = []
            for file in walk.files(folder):
                path = file.relative_to(folder).as_posix()
                if is_model_file(path) and (part := walk.part(file, path)) is not None:
                    parts.append(part)
            found += [
                LocalModel(source="lm-studio", name=f"{repo}/{artifact.name}", artifact=artifact, hub="hf", repo=repo)
                for artifact in artifacts_of(parts, hub="hf", repo=repo)
            ]
    return found
