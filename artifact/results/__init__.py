"""Tables on disk with their provenance: which code and data made them, and the metrics that they hold."""
