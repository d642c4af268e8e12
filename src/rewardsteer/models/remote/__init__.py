"""Reward models behind an address: servers of rewards, and judges."""
