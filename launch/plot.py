"""Draw a run, or several: python launch/plot.py run_dir=RUN"""

from alexnet_mp.commands.plot import main

if __name__ == "__main__":
    main()
