"""The networks as graphs that run without their Python: ONNX files and AOTInductor packages."""
