"""What arrays do: numpy and numba kernels. No files, no torch; arrays in, arrays out."""
