"""What a reward model reads and whether everyone computes the same reward from it.

`rewardsteer.doctor.examination.examine` runs the checks in `rewardsteer.doctor.checks.CHECKS`, one
file each, on a folder.
"""
