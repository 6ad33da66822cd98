"""Export of networks, from torch or ONNX files, to ONNX in three precisions, each compared with its original."""
