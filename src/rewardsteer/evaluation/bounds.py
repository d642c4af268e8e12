"""What is known of divergences without measuring them."""

import math


def best_of_n_bound(n: int) -> float:
    """log n − (n − 1)/n, in nats: the best of n samples is at most so far from what the samples
    were drawn from, in KL divergence a response (arXiv 2401.01879)."""
    return math.log(n) - (n - 1) / n
