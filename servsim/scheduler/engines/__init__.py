"""The schedulers of engines: vLLM, Sarathi-Serve, Orca, FasterTransformer, LightLLM, SGLang."""
