"""Make a pack of pictures to train on: python launch/prepare.py source=photos out=packs/photos"""

if __name__ == "__main__":
    # Not above: every worker process imports this file, and needs only the part of the library that decodes.
    from alexnet_mp.commands.prepare import main

    main()
