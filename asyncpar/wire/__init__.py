"""How calls and results cross between processes: what is said (codec, failures) and how it is carried (frames, channels)."""
