"""Write the page of results: python launch/results.py runs=[runs/a,runs/b] out=docs"""

from alexnet_mp.commands.results import main

if __name__ == "__main__":
    main()
