"""From a reference to the header bytes of GGUF files: Hugging Face, ModelScope, any https address, this disk's caches.

Only headers travel. What was read once is kept with what pins its content, what another program has fetched is used
where it lies, and a token goes to the server it belongs to and nowhere else.
"""

from planner.hub.headers import header_files
from planner.hub.listing import find, find_projector
from planner.hub.local_caches import local_models, local_scan
from planner.hub.patience import PATIENCE, Patience
from planner.hub.reference import parse_reference

__all__ = [
    "PATIENCE",
    "Patience",
    "find",
    "find_projector",
    "header_files",
    "local_models",
    "local_scan",
    "parse_reference",
]
