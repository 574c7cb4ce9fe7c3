"""How fast training is beside stock torch, reported only where the bits are right: what ``dettriton bench`` runs."""
