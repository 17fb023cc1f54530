"""What several implementations need."""
