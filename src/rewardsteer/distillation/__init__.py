"""Vocabulary heads that learn a slower guide: its rewards of the policy's candidates."""
