"""The drawings of a report, one file each: what is drawn, never how it becomes part of a page."""
