"""Who is told: people, where they can be reached, how they join, and how we know that a message would arrive."""
