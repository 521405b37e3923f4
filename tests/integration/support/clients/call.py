"""Calls a method by gRPC, and prints what it answered, or the status and its words."""

import sys

import grpc  # type: ignore[import-untyped]


def unchanged(message: bytes) -> bytes:
    return message


host, method, word = sys.argv[1:]
options = [("grpc.enable_http_proxy", 1)]
with grpc.secure_channel(f"{host}:443", grpc.ssl_channel_credentials(), options) as channel:
    try:
        say = channel.unary_unary(method, request_serializer=unchanged, response_deserializer=unchanged)
        print(say(word.encode(), timeout=60).decode())
    except grpc.RpcError as error:
        print(error.code().name, error.details())
        sys.exit(1)
