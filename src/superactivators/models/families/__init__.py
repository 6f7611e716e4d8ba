"""What differs between families of models that read images: how pixels become patches, and where their states are."""
