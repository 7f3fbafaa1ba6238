"""python main.py --config configs/X.py --workdir DIR [--config.SETTING=VALUE ...]"""

from tljax.__main__ import start

if __name__ == "__main__":
    start()
