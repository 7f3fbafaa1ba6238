"""python main.py --config configs/X.py --workdir DIR [--config.SETTING=VALUE ...]"""

from tljax.cli import main

if __name__ == "__main__":
    main()
