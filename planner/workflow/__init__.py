"""detect → catalogue → estimate → choose → measure → plan: each public function is one fold over these steps.

The only room that knows all others except ``cli``. The mistake it prevents: a command that assembles the steps in its
own way, so that ``estimate``, ``plan`` and ``why-not`` disagree about the same machine.
"""

from planner.measure.calibration import told as calibration_told
from planner.workflow.calibrating import calibrate
from planner.workflow.drifting import drift
from planner.workflow.foreign import against, elsewhere, import_file, kept, read_measurement
from planner.workflow.inspecting import inspect
from planner.workflow.inspection import capture, detect, estimate, explain, models
from planner.workflow.listing import Listing, ModelFilter, capabilities, select, show
from planner.workflow.local import LocalCopy, LocalListing, local_models
from planner.workflow.measuring import measure
from planner.workflow.planning import WhyNot, plan, why_not
from planner.workflow.requests import EstimateRequest
from planner.workflow.timing import Progress
from planner.workflow.tuning import tune

__all__ = [
    "EstimateRequest",
    "Listing",
    "LocalCopy",
    "LocalListing",
    "ModelFilter",
    "Progress",
    "WhyNot",
    "against",
    "calibrate",
    "calibration_told",
    "capabilities",
    "capture",
    "detect",
    "drift",
    "elsewhere",
    "estimate",
    "explain",
    "import_file",
    "inspect",
    "kept",
    "local_models",
    "measure",
    "models",
    "plan",
    "read_measurement",
    "select",
    "show",
    "tune",
    "why_not",
]
