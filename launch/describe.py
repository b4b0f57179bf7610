"""Print what a network costs, layer by layer: python launch/describe.py network=paper [json=PATH]"""

from alexnet_mp.commands.describe import main

if __name__ == "__main__":
    main()
