"""The most probable classes of photographs: python launch/classify.py checkpoint=CHECKPOINT pictures=[a.jpg,b.jpg]"""

from alexnet_mp.commands.classify import main

if __name__ == "__main__":
    main()
