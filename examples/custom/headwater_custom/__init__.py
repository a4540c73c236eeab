"""What one may add to Headwater without touching it."""
