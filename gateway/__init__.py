"""What runs in the town. Of `edge` it may import `edge.contract` only."""
