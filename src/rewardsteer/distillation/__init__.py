"""Distillation of a slower guide into a vocabulary head, from its rewards of the policy's
candidates."""
