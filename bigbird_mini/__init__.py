"""bigbird_mini: block-sparse attention."""
