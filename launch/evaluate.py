"""Evaluate a checkpoint, or several averaged: python launch/evaluate.py checkpoint=CHECKPOINT [views=10]"""

from alexnet_mp.commands.evaluate import main

if __name__ == "__main__":
    main()
