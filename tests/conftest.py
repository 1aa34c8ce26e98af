"""Every test starts from the same process: what the caller's shell left behind must not decide a result."""

import os
import signal

# Both hide faults: a stdout that is never buffered has no last flush that could fail, a path lends modules that the
# installation lacks. PYTHONDONTWRITEBYTECODE changes no result.
for name in ("PYTHONUNBUFFERED", "PYTHONPATH", "PYTHONWARNINGS"):
    os.environ.pop(name, None)

# A shell starts `make test &` with Ctrl-C ignored, and every process below would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
