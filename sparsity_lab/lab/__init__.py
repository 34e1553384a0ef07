"""The Python interface: a trained model to run, intervene in, and explain. `sparsity_lab.load` returns it."""
