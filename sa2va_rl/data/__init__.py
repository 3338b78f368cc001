"""Pictures, masks, their files and splits, and image features."""
