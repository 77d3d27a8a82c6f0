"""What is measured of a model that was made to forget: metrics, attacks, the audit that takes them, the verdict."""
