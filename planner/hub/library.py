"""The one door to huggingface_hub and modelscope_hub: imported late, without telemetry, bars or lines of their own.

The library tells its server which other packages are installed and which program calls it, and asks one question of its
own for that. A planner has no business doing so: unless the user has decided otherwise, it is switched off before the
import, where the library reads its environment once and for all.
"""

import logging
import os
from pathlib import Path
from typing import Any

from planner import __version__
from planner.errors import UnavailableError

__all__ = ["file_metadata", "model_info", "modelscope_api", "place_in_cache", "session", "stored_token"]


def session() -> Any:  # noqa: ANN401 - a client of httpx (huggingface_hub 1) or httpx2 (from 2)
    """The library's HTTP client, shared by the whole process: its proxies, its certificates, its offline switch."""
    return _library().get_session()


def stored_token() -> str | None:
    """The token that the library finds (HF_TOKEN, then its file), or None; it may be asked to renew one first."""
    token = _library().get_token()
    return token if isinstance(token, str) and token else None


def model_info(repo: str, *, revision: str | None, endpoint: str, token: str | None, timeout_s: float) -> Any:  # noqa: ANN401 - the library's struct, whose fields the caller checks
    """One repository with its files' sizes and hashes; raises what the library and its HTTP client raise."""
    api = _library().HfApi(
        endpoint=endpoint, token=token or False, library_name="llama-planner", library_version=__version__
    )
    return api.model_info(repo, revision=revision, files_metadata=True, timeout=timeout_s)


def file_metadata(url: str, *, endpoint: str, token: str | None, timeout_s: float) -> Any:  # noqa: ANN401 - the same
    """What the hub says about one file (commit, ETag, size), without its body; raises as :func:`model_info` does."""
    return _library().get_hf_file_metadata(
        url,
        token=token or False,
        timeout=timeout_s,
        library_name="llama-planner",
        library_version=__version__,
        endpoint=endpoint,
    )


def place_in_cache(repo: str, path: str, *, commit: str, cache: Path, endpoint: str, token: str | None) -> Path:
    """Where a file stands in the library's cache, linked there by the library itself: its blob has to be there.

    Raises what the library raises, an OSError where the cache cannot be written among it.
    """
    found = _library().hf_hub_download(
        repo,
        path,
        revision=commit,
        cache_dir=str(cache),
        endpoint=endpoint,
        token=token or False,
        library_name="llama-planner",
        library_version=__version__,
    )
    return Path(found)


def modelscope_api(*, endpoint: str, token: str | None, cache: Path) -> Any:  # noqa: ANN401 - the library's client
    """The client of modelscope_hub, the part of ModelScope's package that knows the hub.

    The token is always named, an empty one too: only then is the login that the library stores as a pickle not opened.
    Its folder for such things is one that cannot be: it would keep an identity there and send it with each request.
    Raises UnavailableError (code ``modelscope-missing``) where the library is not installed.
    """
    for name, value in _MODELSCOPE.items():
        os.environ.setdefault(name, value)
    os.environ["MODELSCOPE_DOWNLOAD_PARALLEL_WORKERS"] = "1"  # one partial file, which a later run can go on with
    try:
        import modelscope_hub  # noqa: PLC0415 - an optional part, and only for the network
    except ImportError:
        raise UnavailableError(
            "the library of ModelScope is not installed",
            hint='pip install "llama-planner[modelscope]"',
            code="modelscope-missing",
        ) from None
    # It writes addresses with signatures into its log, and a line for each attempt to stderr.
    logging.getLogger("modelscope_hub").setLevel(logging.CRITICAL + 1)
    nowhere = Path(os.devnull) / "modelscope"
    config = modelscope_hub.HubConfig(endpoint=endpoint, token=token or "", cache_dir=cache, config_dir=nowhere)
    return modelscope_hub.HubApi(config, user_agent=f"llama-planner/{__version__}")


_HUGGING_FACE = (
    "HF_HUB_DISABLE_XET",
    "HF_HUB_DISABLE_PROGRESS_BARS",
    "HF_HUB_DISABLE_SYMLINKS_WARNING",
    "TQDM_DISABLE",  # read when tqdm is imported, which the library does; it is modelscope_hub's bar that is meant
)
_MODELSCOPE = {
    "TQDM_DISABLE": "1",
    "MODELSCOPE_DOWNLOAD_INTRA_CLOUD": "false",  # it asks an address that the server names
    "MODELSCOPE_DOWNLOAD_TOTAL_TIMEOUT": str(30 * 86_400),  # an hour is too short for most models
}


def _library() -> Any:  # noqa: ANN401 - a module
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = os.environ.get("HF_HUB_DISABLE_TELEMETRY") or "1"
    for name in _HUGGING_FACE:
        os.environ.setdefault(name, "1")
    import huggingface_hub  # noqa: PLC0415 - a third of a second, only for the network

    return huggingface_hub
