"""The benchmark: a grid of methods, data sets, nets, classes, shots and seeds, run where it is not done yet."""
