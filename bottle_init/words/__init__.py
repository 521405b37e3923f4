"""Words for people and for programs: names of signals, JSON lines, text on a terminal."""
