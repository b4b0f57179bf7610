"""The sources that preparation takes, one file each: how ImageNet and other photographs circulate."""
