"""Count networks layer by layer and draw it: python launch/account.py networks=[paper,vgg16] out=docs"""

from alexnet_mp.commands.account import main

if __name__ == "__main__":
    main()
