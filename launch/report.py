"""Write the report of a run as one HTML page: python launch/report.py run_dir=runs/digits/TIME"""

from alexnet_mp.commands.report import main

if __name__ == "__main__":
    main()
