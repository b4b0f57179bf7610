"""Predict step time, memory and 90 epochs: python launch/plan.py network=paper hardware=two_gtx_580 [json=PATH]"""

from alexnet_mp.commands.plan import main

if __name__ == "__main__":
    main()
