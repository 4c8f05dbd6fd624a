"""Client stubs of Opportune, generated from proto/: `from opportune.v1 import decisions_pb2, decisions_pb2_grpc`."""
