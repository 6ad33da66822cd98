"""Networks to engines: torch to ONNX, precision, ONNX to TensorRT plans, and the cache that keeps them."""
