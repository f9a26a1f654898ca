"""What the leader does: reconcile each workload, place what is missing, commit under the fence."""
