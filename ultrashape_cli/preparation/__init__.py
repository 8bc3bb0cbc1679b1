"""Raw meshes to a dataset: discover, run the steps in guarded workers, report."""
