"""Train variants with several seeds each, one torchrun a job: python launch/sweep.py sweep=lrn out=FOLDER"""

from alexnet_mp.commands.sweep import main

if __name__ == "__main__":
    main()
