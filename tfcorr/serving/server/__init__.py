"""A server of exported models that speaks TensorFlow Serving's protocols: gRPC and REST."""
