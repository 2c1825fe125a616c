"""The cases of remote objects with Python's pycapnp, as a client or as the server.

    objects_interop.py call --port P --schema DIR     each case against a server, a line for each
    objects_interop.py serve --port P --schema DIR    a name service with a factory of counters

Lines are `case <tab> pass|fail <tab> seconds <tab> detail`. The schemas are read from DIR. The cases
are those of `ringmill_rpc::objects::interop`.
"""

import argparse
import asyncio
import gc
import pathlib
import sys
import time

import capnp

FACTORY = "counters"
# No case takes longer on a loaded machine.
LIMIT = 60
BLOB = bytes(n & 255 for n in range(100_000))


def same(what, value, wanted):
    if value != wanted:
        raise AssertionError(f"{what}: {value!r}, not {wanted!r}")


class Schemas:
    def __init__(self, folder):
        load = lambda name: capnp.load(str(pathlib.Path(folder) / f"{name}.capnp"))
        names, counters = load("names"), load("counter")
        self.NameService, self.Lease = names.NameService, names.Lease
        self.Counter, self.Observer = counters.Counter, counters.Observer
        self.CounterFactory, self.Record = counters.CounterFactory, counters.Record


def objects(schemas):
    """The objects of a server, and those that a client passes."""
    alive = [0]

    class Counter(schemas.Counter.Server):
        def __init__(self, value):
            self.number = value
            self.observers = []
            alive[0] += 1

        def __del__(self):
            alive[0] -= 1

        async def add(self, by, _context, **kwargs):
            self.number += by
            for observer in self.observers:
                await observer.changed(self.number)
            _context.results.value = self.number
            _context.results.counter = self

        async def value(self, _context, **kwargs):
            return self.number

        async def watch(self, observer, _context, **kwargs):
            self.observers.append(observer)

    class Factory(schemas.CounterFactory.Server):
        async def make(self, start, _context, **kwargs):
            return Counter(start)

        async def alive(self, _context, **kwargs):
            # References that were let go may still wait to be collected.
            gc.collect()
            return alive[0]

        async def sum(self, counters, _context, **kwargs):
            total = 0
            for counter in counters:
                total += (await counter.value()).value
            return total

        async def echo(self, record, _context, **kwargs):
            _context.results.record = record

        async def wait(self, ms, _context, **kwargs):
            await asyncio.sleep(ms / 1000)

        async def fail(self, reason, _context, **kwargs):
            raise RuntimeError(reason)

    return Counter, Factory, alive


def name_service(schemas, factory):
    class Lease(schemas.Lease.Server):
        def __init__(self, names, name, entry):
            self.names, self.name, self.entry = names, name, entry

        async def renew(self, _context, **kwargs):
            if self.names.get(self.name) is not self.entry:
                raise RuntimeError(f"the lease of {self.name!r} has ended")
            return 0

    class NameService(schemas.NameService.Server):
        """Names of one process, for whoever asks; leases never end."""

        def __init__(self, names):
            self.names = names

        async def resolve(self, name, _context, **kwargs):
            if name not in self.names:
                raise RuntimeError(f"nothing is registered as {name!r}")
            _context.results.object = self.names[name]

        async def register(self, name, object, leaseMs, _context, **kwargs):
            self.names[name] = object.as_interface(schemas.Counter)
            return Lease(self.names, name, self.names[name])

        async def unregister(self, name, _context, **kwargs):
            del self.names[name]

        async def list(self, prefix, after, limit, _context, **kwargs):
            _context.results.names = sorted(
                name for name in self.names if name.startswith(prefix) and name > after
            )

    return NameService({FACTORY: factory})


class Cases:
    def __init__(self, schemas, service):
        self.schemas, self.service = schemas, service
        self.Counter, _, self.alive = objects(schemas)

    async def resolved(self, name, schema):
        return (await self.service.resolve(name)).object.as_interface(schema)

    async def factory(self):
        return await self.resolved(FACTORY, self.schemas.CounterFactory)

    async def case_counter(self):
        counter = (await self.factory()).make(40).counter
        same("the sum", (await counter.add(2)).value, 42)
        same("the value", (await counter.value()).value, 42)
        same("a negative sum", (await counter.add(-50)).value, -8)

    async def case_pipelined(self):
        counter = (await self.factory()).make(5).counter
        for by in (10, 100, 1000):
            counter = counter.add(by).counter
        same("the value", (await counter.value()).value, 1115)

    async def case_references(self):
        factory = await self.factory()
        counters = [factory.make(1).counter, self.Counter(20), factory.make(300).counter]
        same("the total", (await factory.sum(counters)).total, 321)

    async def case_by_value(self):
        factory = await self.factory()
        record = {"name": "häuser", "number": -(2**63), "blob": BLOB, "tags": ["", "second"]}
        request = factory.echo_request()
        request.record = record
        request.record.counter = self.Counter(7)
        echoed = (await request.send()).record
        same("the name", echoed.name, record["name"])
        same("the number", echoed.number, record["number"])
        same("the blob", bytes(echoed.blob) == BLOB, True)
        same("tags", list(echoed.tags), record["tags"])
        same("its value", (await echoed.counter.value()).value, 7)

    async def case_exception(self):
        factory = await self.factory()
        try:
            await factory.fail("as it was asked to")
        except capnp.KjException as error:
            same("the reason", "as it was asked to" in str(error), True)
        else:
            raise AssertionError("no exception")
        try:
            await self.service.resolve("nobody")
        except capnp.KjException:
            return
        raise AssertionError("nobody is registered")

    async def case_unimplemented(self):
        counter = await self.resolved(FACTORY, self.schemas.Counter)
        try:
            await counter.value()
        except capnp.KjException as error:
            same("the kind", error.type, "UNIMPLEMENTED")
            return
        raise AssertionError("a factory has a value")

    async def case_release(self):
        factory = await self.factory()
        before = (await factory.alive()).count
        counters = [factory.make(n).counter for n in range(10)]
        for n, counter in enumerate(counters):
            same("a value", (await counter.value()).value, n)
        same("alive", (await factory.alive()).count, before + 10)
        del counters, counter
        for _ in range(100):
            gc.collect()
            if (await factory.alive()).count == before:
                return
            await asyncio.sleep(0.02)
        same("alive", (await factory.alive()).count, before)

    async def case_observer(self):
        heard = []

        class Ear(self.schemas.Observer.Server):
            async def changed(self, value, _context, **kwargs):
                heard.append(value)

        counter = (await self.factory()).make(0).counter
        await counter.watch(Ear())
        for by in range(1, 6):
            await counter.add(by)
        for _ in range(100):
            if len(heard) == 5:
                break
            await asyncio.sleep(0.02)
        same("heard", heard, [1, 3, 6, 10, 15])

    async def case_names(self):
        name = "interop/ours"
        lease = (await self.service.register(name, self.Counter(11), 0)).lease
        same("no lease", (await lease.renew()).leaseMs, 0)
        ours = await self.resolved(name, self.schemas.Counter)
        same("its value", (await ours.value()).value, 11)
        listed = list((await self.service.list("interop/", "", 0)).names)
        same("names", listed, [name])
        await self.service.unregister(name)
        try:
            await lease.renew()
        except capnp.KjException:
            return
        raise AssertionError("the lease outlives its name")

    async def case_given_up(self):
        factory = await self.factory()
        try:
            await asyncio.wait_for(factory.wait(60_000), 0.1)
        except asyncio.TimeoutError:
            pass
        else:
            raise AssertionError("a minute was over at once")
        await factory.wait(1)
        await factory.alive()


async def call(schemas, port):
    stream = await capnp.AsyncIoStream.create_connection("127.0.0.1", port)
    client = capnp.TwoPartyClient(stream)
    cases = Cases(schemas, client.bootstrap().cast_as(schemas.NameService))
    failed = 0
    for name in [name for name in dir(Cases) if name.startswith("case_")]:
        began = time.monotonic()
        try:
            await asyncio.wait_for(getattr(cases, name)(), LIMIT)
            verdict, detail = "pass", ""
        except Exception as error:  # whatever it is, it is the case's
            verdict, detail, failed = "fail", f"{type(error).__name__}: {error}", failed + 1
        took = time.monotonic() - began
        print(f"{name.removeprefix('case_')}\t{verdict}\t{took:.2f}\t{detail}", flush=True)
    return failed


async def serve(schemas, port):
    _, Factory, _ = objects(schemas)
    service = name_service(schemas, Factory())

    async def connection(stream):
        await capnp.TwoPartyServer(stream, bootstrap=service).on_disconnect()

    server = await capnp.AsyncIoStream.create_server(connection, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=["call", "serve"])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--schema", required=True)
    given = parser.parse_args()
    run = {"call": call, "serve": serve}[given.mode]
    failed = asyncio.run(capnp.run(run(Schemas(given.schema), given.port)))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
