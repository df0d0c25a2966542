"""loky's package of processes. Only its contexts are asked for, by code that chooses how workers start."""
