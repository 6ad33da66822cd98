"""ONNX to TensorRT plans, and the cache that keeps them."""
