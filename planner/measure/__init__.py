"""Times candidates with the real engine on phantoms, says when a timing is worth nothing, and keeps what is good."""
