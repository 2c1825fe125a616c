"""gRPC's published interop cases with Python's grpcio, as a client or as the server.

    grpc_interop.py call --port P --proto DIR     each case against a server, a line for each
    grpc_interop.py serve --port P --proto DIR    the test service, until it is killed

Lines are `case <tab> pass|fail <tab> seconds <tab> detail`. The messages are compiled from DIR when
the script starts. Source: grpc/doc/interop-test-descriptions.md.
"""

import argparse
import importlib
import pathlib
import sys
import tempfile
import time
from concurrent import futures

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_tools import protoc

INITIAL = "x-grpc-test-echo-initial"
TRAILING = "x-grpc-test-echo-trailing-bin"
REQUESTS = [27182, 8, 1828, 45904]
RESPONSES = [31415, 9, 2653, 58979]
# No case takes longer on a loaded machine.
LIMIT = 60


def compile_messages(proto):
    """Modules of the messages and of the services."""
    out = tempfile.mkdtemp(prefix="grpc-interop-")
    files = sorted(str(path.relative_to(proto)) for path in pathlib.Path(proto).rglob("*.proto"))
    status = protoc.main(
        ["protoc", f"-I{proto}", f"--python_out={out}", f"--grpc_python_out={out}", *files]
    )
    if status != 0:
        raise SystemExit(f"protoc failed: {status}")
    # `grpc` is a package already: the generated folders are put on its path.
    grpc.__path__.append(f"{out}/grpc")
    return [importlib.import_module(f"grpc.testing.{name}") for name in
            ("empty_pb2", "messages_pb2", "test_pb2_grpc")]


def same(what, value, wanted):
    if value != wanted:
        raise AssertionError(f"{what}: {value!r}, not {wanted!r}")


def code_of(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


class Requests:
    """A stream of requests that is fed from outside, and ended by `None`."""

    def __init__(self):
        import queue

        self.queue = queue.Queue()

    def __iter__(self):
        return iter(self.queue.get, None)


class Client:
    def __init__(self, channel, modules):
        self.empty, self.messages, services = modules
        self.channel = channel
        self.stub = services.TestServiceStub(channel)
        self.unimplemented = services.UnimplementedServiceStub(channel)

    def payload(self, size):
        return self.messages.Payload(body=bytes(size))

    def simple(self, request=0, response=0, **more):
        return self.messages.SimpleRequest(
            payload=self.payload(request), response_size=response, **more
        )

    def ping(self, request, response, **more):
        wants = self.messages.ResponseParameters(size=response)
        return self.messages.StreamingOutputCallRequest(
            payload=self.payload(request), response_parameters=[wants], **more
        )

    def empty_unary(self):
        same("the answer", self.stub.EmptyCall(self.empty.Empty(), timeout=LIMIT), self.empty.Empty())

    def large_unary(self):
        answer = self.stub.UnaryCall(self.simple(271828, 314159), timeout=LIMIT)
        same("the answer", answer.payload.body, bytes(314159))

    def compressed_unary(self):
        answer = self.stub.UnaryCall(
            self.simple(271828, 314159), timeout=LIMIT, compression=grpc.Compression.Gzip
        )
        same("the answer", answer.payload.body, bytes(314159))

    def client_streaming(self):
        requests = (
            self.messages.StreamingInputCallRequest(payload=self.payload(size)) for size in REQUESTS
        )
        answer = self.stub.StreamingInputCall(requests, timeout=LIMIT)
        same("the sum", answer.aggregated_payload_size, sum(REQUESTS))

    def server_streaming(self):
        request = self.messages.StreamingOutputCallRequest(
            response_parameters=[self.messages.ResponseParameters(size=size) for size in RESPONSES]
        )
        answers = self.stub.StreamingOutputCall(request, timeout=LIMIT)
        same("the sizes", [len(answer.payload.body) for answer in answers], RESPONSES)

    def ping_pong(self):
        requests = Requests()
        answers = self.stub.FullDuplexCall(iter(requests), timeout=LIMIT)
        for request, response in zip(REQUESTS, RESPONSES):
            requests.queue.put(self.ping(request, response))
            same("an answer", len(next(answers).payload.body), response)
        requests.queue.put(None)
        same("what follows", next(answers, None), None)

    def empty_stream(self):
        same("answers", list(self.stub.FullDuplexCall(iter(()), timeout=LIMIT)), [])

    def cancel_after_begin(self):
        requests = Requests()
        call = self.stub.StreamingInputCall.future(iter(requests), timeout=LIMIT)
        call.cancel()
        same("it is cancelled", call.cancelled(), True)
        same("the code", call.code(), grpc.StatusCode.CANCELLED)
        requests.queue.put(None)
        self.empty_unary()

    def cancel_after_first_response(self):
        requests = Requests()
        answers = self.stub.FullDuplexCall(iter(requests), timeout=LIMIT)
        requests.queue.put(self.ping(REQUESTS[0], RESPONSES[0]))
        same("an answer", len(next(answers).payload.body), RESPONSES[0])
        answers.cancel()
        same("the code", code_of(lambda: next(answers)), grpc.StatusCode.CANCELLED)
        requests.queue.put(None)
        self.empty_unary()

    def timeout_on_sleeping_server(self):
        requests = Requests()
        requests.queue.put(self.messages.StreamingOutputCallRequest(payload=self.payload(27182)))
        answers = self.stub.FullDuplexCall(iter(requests), timeout=0.001)
        same("the code", code_of(lambda: next(answers)), grpc.StatusCode.DEADLINE_EXCEEDED)
        requests.queue.put(None)

    def status_case(self, message, streams):
        status = self.messages.EchoStatus(code=2, message=message)
        calls = [lambda: self.stub.UnaryCall(self.simple(response_status=status), timeout=LIMIT)]
        if streams:
            request = self.messages.StreamingOutputCallRequest(response_status=status)
            calls.append(lambda: next(self.stub.FullDuplexCall(iter([request]), timeout=LIMIT)))
        for call in calls:
            try:
                call()
                raise AssertionError("the call succeeded")
            except grpc.RpcError as error:
                same("the code", error.code(), grpc.StatusCode.UNKNOWN)
                same("the message", error.details(), message)

    def status_code_and_message(self):
        self.status_case("test status message", True)

    def special_status_message(self):
        self.status_case("\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n", False)

    def unimplemented_method(self):
        call = lambda: self.stub.UnimplementedCall(self.empty.Empty(), timeout=LIMIT)
        same("the code", code_of(call), grpc.StatusCode.UNIMPLEMENTED)

    def unimplemented_service(self):
        call = lambda: self.unimplemented.UnimplementedCall(self.empty.Empty(), timeout=LIMIT)
        same("the code", code_of(call), grpc.StatusCode.UNIMPLEMENTED)

    def custom_metadata(self):
        metadata = ((INITIAL, "test_initial_metadata_value"), (TRAILING, b"\x0a\x0b\x0a\x0b\x0a\x0b"))

        def check(call):
            initial, trailing = dict(call.initial_metadata()), dict(call.trailing_metadata())
            same("the headers", initial.get(INITIAL), metadata[0][1])
            same("the trailers", trailing.get(TRAILING), metadata[1][1])

        _, call = self.stub.UnaryCall.with_call(self.simple(1, 1), metadata=metadata, timeout=LIMIT)
        check(call)
        call = self.stub.FullDuplexCall(iter([self.ping(1, 1)]), metadata=metadata, timeout=LIMIT)
        same("answers", len(list(call)), 1)
        check(call)

    def health(self):
        stub = health_pb2_grpc.HealthStub(self.channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=LIMIT)
        same("the server", answer.status, health_pb2.HealthCheckResponse.SERVING)
        unknown = health_pb2.HealthCheckRequest(service="nobody")
        code = code_of(lambda: stub.Check(unknown, timeout=LIMIT))
        same("an unknown service", code, grpc.StatusCode.NOT_FOUND)
        watch = stub.Watch(unknown, timeout=LIMIT)
        same("watched", next(watch).status, health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
        watch.cancel()

    def reflection(self):
        database = ProtoReflectionDescriptorDatabase(self.channel)
        names = list(database.get_services())
        same("it is listed", "grpc.testing.TestService" in names, True)
        file = database.FindFileContainingSymbol("grpc.testing.TestService")
        same("the file", file.name, "grpc/testing/test.proto")


CASES = [
    "empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong",
    "empty_stream", "cancel_after_begin", "cancel_after_first_response",
    "timeout_on_sleeping_server", "status_code_and_message", "special_status_message",
    "unimplemented_method", "unimplemented_service", "custom_metadata",
    # Beyond the published ones.
    "compressed_unary", "health", "reflection",
]


def call(port, modules):
    failures = 0
    for name in CASES:
        began = time.monotonic()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            try:
                getattr(Client(channel, modules), name)()
                state, detail = "pass", ""
            except Exception as error:  # a case that breaks has failed
                failures += 1
                state, detail = "fail", " ".join(f"{type(error).__name__}: {error}".split())
        print(f"{name}\t{state}\t{time.monotonic() - began:.2f}\t{detail}", flush=True)
    return failures


def serve(port, modules):
    empty, messages, services = modules

    def payload(size):
        return messages.Payload(body=bytes(size))

    def echo(context):
        given = dict(context.invocation_metadata())
        if INITIAL in given:
            context.send_initial_metadata(((INITIAL, given[INITIAL]),))
        if TRAILING in given:
            context.set_trailing_metadata(((TRAILING, given[TRAILING]),))

    def fail_if_wanted(request, context):
        if request.HasField("response_status") and request.response_status.code:
            wanted = request.response_status
            code = next(code for code in grpc.StatusCode if code.value[0] == wanted.code)
            context.abort(code, wanted.message)

    class Service(services.TestServiceServicer):
        def EmptyCall(self, request, context):
            return empty.Empty()

        def UnaryCall(self, request, context):
            echo(context)
            fail_if_wanted(request, context)
            return messages.SimpleResponse(payload=payload(request.response_size))

        def StreamingOutputCall(self, request, context):
            fail_if_wanted(request, context)
            for wanted in request.response_parameters:
                time.sleep(wanted.interval_us / 1e6)
                yield messages.StreamingOutputCallResponse(payload=payload(wanted.size))

        def StreamingInputCall(self, requests, context):
            size = sum(len(request.payload.body) for request in requests)
            return messages.StreamingInputCallResponse(aggregated_payload_size=size)

        def FullDuplexCall(self, requests, context):
            echo(context)
            for request in requests:
                yield from self.StreamingOutputCall(request, context)

    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    services.add_TestServiceServicer_to_server(Service(), server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    print(f"ready: grpc on 127.0.0.1:{bound}", flush=True)
    server.wait_for_termination()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mode", choices=["call", "serve"])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--proto", required=True)
    args = parser.parse_args()
    modules = compile_messages(args.proto)
    if args.mode == "serve":
        serve(args.port, modules)
    elif call(args.port, modules):
        sys.exit(1)


if __name__ == "__main__":
    main()
