"""``python -m rewardsteer``, and the module that ``accelerate launch -m`` starts."""

from rewardsteer.cli.main import app

if __name__ == "__main__":
    app()
