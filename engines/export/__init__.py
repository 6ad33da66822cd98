"""Networks, from torch or from ONNX files, to ONNX in three precisions, and what holds them against their origin."""
