"""What a selector sees of an item: encoders, embeddings, slate features."""
