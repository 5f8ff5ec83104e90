"""Contrastive training in plain NumPy: losses with hand-written gradients, optimisers, fine-tuning, gradient checks."""
