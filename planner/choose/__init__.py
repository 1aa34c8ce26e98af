"""Which candidate is best and why: pure opinions over facts that others supply; nothing here touches a system.

``policy`` holds every opinion, ``candidates`` what the goal allows, ``placement`` where layers go, ``evaluate`` the
search, ``rank`` the order and the words for it, ``why_not`` the answer to "and why not that one?".
"""

__all__: list[str] = []
