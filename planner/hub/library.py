"""The one door to huggingface_hub: imported late (a third of a second), and without its telemetry.

The library tells its server which other packages are installed and which program calls it, and asks one question of its
own for that. A planner has no business doing so: unless the user has decided otherwise, it is switched off before the
import, where the library reads its environment once and for all.
"""

import os
from typing import Any

from planner import __version__

__all__ = ["model_info", "session", "stored_token"]


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


def _library() -> Any:  # noqa: ANN401 - a module
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = os.environ.get("HF_HUB_DISABLE_TELEMETRY") or "1"
    import huggingface_hub  # noqa: PLC0415 - a third of a second, only for the network

    return huggingface_hub
