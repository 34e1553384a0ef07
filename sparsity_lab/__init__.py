"""Train weight-sparse transformers and prune them to circuits."""

from sparsity_lab.core.processors import wait_briefly

wait_briefly()  # here, because nothing of the package is imported earlier, torch included
