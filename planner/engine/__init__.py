"""The one door to llama.cpp: its child process, the questions it answers, and the phantoms it is asked about."""
