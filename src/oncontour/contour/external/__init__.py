"""Models that others trained: nnU-Net, MONAI bundles, ONNX and TorchScript files, behind one face."""
