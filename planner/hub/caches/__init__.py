"""Where other programs keep the models they fetched: one file for each program's layout."""
