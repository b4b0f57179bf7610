"""Convert weights: python launch/convert.py source=CHECKPOINT out=FILE.safetensors [dropout=inverted], or back."""

from alexnet_mp.commands.convert import main

if __name__ == "__main__":
    main()
