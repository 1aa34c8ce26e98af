"""Plans as a report to look at: ``page`` makes one HTML file, ``markdown`` the same for GitHub.

Both print the parts that ``sheet`` puts into words. Only ``page`` draws, so only ``page`` needs the extra ``report``
(matplotlib and jinja2); nothing is imported here.
"""
