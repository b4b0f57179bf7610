"""Images and labels, batch by batch. Nothing here knows that there are towers, only replicas."""
