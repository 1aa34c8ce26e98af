"""Effects that obey a plan file: fetching its weights, serving them, checking that what runs is what was planned.

The mistake this room prevents is deciding anew: nothing here reads the options that made a plan, only the plan.
"""
