"""Recipes: what each system teaches its networks and how it groups pixels into nuclei, one file each."""
