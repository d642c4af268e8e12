"""Checks of how a reward model reads texts, and whether other programs compute the same rewards.

`rewardsteer.doctor.examination.examine` runs the checks in `rewardsteer.doctor.checks.CHECKS`, one
file each, on a folder.
"""
