"""What several methods share: losses, preconditioning, stand-ins, batches, stopping."""
