"""Print what a network costs, layer by layer, or write it for several: python launch/describe.py network=paper"""

from alexnet_mp.commands.describe import main

if __name__ == "__main__":
    main()
