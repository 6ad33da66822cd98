"""One network on one runtime: ONNX Runtime, OpenVINO, TensorRT or torch, behind one small protocol."""
