"""The multimodal policy: prompts, patches, processor, model, sampling."""
