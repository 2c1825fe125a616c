// The cases of remote objects with C++'s capnproto, as a client or as the server.
//
//     objects_cpp call PORT      each case against a server, a line for each
//     objects_cpp serve PORT     a name service with a factory of counters, until it is killed
//
// Lines are `case <tab> pass|fail <tab> seconds <tab> detail`. The cases are those of
// `ringmill_rpc::objects::interop`.

#include <capnp/ez-rpc.h>
#include <capnp/message.h>
#include <capnp/rpc-twoparty.h>
#include <kj/async-io.h>
#include <kj/debug.h>

#include <chrono>
#include <cstdlib>
#include <iostream>
#include <map>
#include <string>
#include <vector>

#include "counter.capnp.h"
#include "names.capnp.h"

namespace {

constexpr char FACTORY[] = "counters";
/// No case takes longer on a loaded machine.
constexpr auto LIMIT = 60 * kj::SECONDS;

int alive = 0;

class CounterImpl final : public Counter::Server {
public:
  explicit CounterImpl(int64_t value) : number(value) { ++alive; }
  ~CounterImpl() noexcept { --alive; }

  kj::Promise<void> add(AddContext context) override {
    number += context.getParams().getBy();
    auto told = kj::heapArrayBuilder<kj::Promise<void>>(observers.size());
    for (auto& observer : observers) {
      auto request = observer.changedRequest();
      request.setValue(number);
      told.add(request.send().ignoreResult());
    }
    auto results = context.getResults();
    results.setValue(number);
    results.setCounter(thisCap());
    return kj::joinPromises(told.finish());
  }

  kj::Promise<void> value(ValueContext context) override {
    context.getResults().setValue(number);
    return kj::READY_NOW;
  }

  kj::Promise<void> watch(WatchContext context) override {
    observers.push_back(context.getParams().getObserver());
    return kj::READY_NOW;
  }

private:
  int64_t number;
  std::vector<Observer::Client> observers;
};

class FactoryImpl final : public CounterFactory::Server {
public:
  explicit FactoryImpl(kj::Timer& timer) : timer(timer) {}

  kj::Promise<void> make(MakeContext context) override {
    context.getResults().setCounter(kj::heap<CounterImpl>(context.getParams().getStart()));
    return kj::READY_NOW;
  }

  kj::Promise<void> alive(AliveContext context) override {
    context.getResults().setCount(::alive);
    return kj::READY_NOW;
  }

  kj::Promise<void> sum(SumContext context) override {
    auto asked = kj::Vector<kj::Promise<int64_t>>();
    for (auto counter : context.getParams().getCounters()) {
      asked.add(counter.valueRequest().send().then([](auto&& answer) { return answer.getValue(); }));
    }
    return kj::joinPromises(asked.releaseAsArray()).then([context](auto&& values) mutable {
      int64_t total = 0;
      for (auto value : values) total += value;
      context.getResults().setTotal(total);
    });
  }

  kj::Promise<void> echo(EchoContext context) override {
    context.getResults().setRecord(context.getParams().getRecord());
    return kj::READY_NOW;
  }

  kj::Promise<void> wait(WaitContext context) override {
    return timer.afterDelay(context.getParams().getMs() * kj::MILLISECONDS);
  }

  kj::Promise<void> fail(FailContext context) override {
    return KJ_EXCEPTION(FAILED, context.getParams().getReason());
  }

private:
  kj::Timer& timer;
};

/// Names of one process, for whoever asks; leases never end.
class NamesImpl final : public NameService::Server {
public:
  explicit NamesImpl(CounterFactory::Client factory) { names.emplace(FACTORY, Entry{factory, 0}); }

  kj::Promise<void> resolve(ResolveContext context) override {
    auto found = names.find(context.getParams().getName());
    KJ_REQUIRE(found != names.end(), "nothing is registered under the name");
    context.getResults().setObject(found->second.object);
    return kj::READY_NOW;
  }

  kj::Promise<void> register_(RegisterContext context) override {
    std::string name = context.getParams().getName();
    names.erase(name);
    names.emplace(name, Entry{context.getParams().getObject(), ++serial});
    context.getResults().setLease(kj::heap<LeaseImpl>(*this, name, serial));
    return kj::READY_NOW;
  }

  kj::Promise<void> unregister(UnregisterContext context) override {
    names.erase(context.getParams().getName());
    return kj::READY_NOW;
  }

  kj::Promise<void> list(ListContext context) override {
    std::string prefix = context.getParams().getPrefix(), after = context.getParams().getAfter();
    std::vector<std::string> found;
    for (auto& entry : names) {
      if (entry.first.compare(0, prefix.size(), prefix) == 0 && entry.first > after) {
        found.push_back(entry.first);
      }
    }
    auto listed = context.getResults().initNames(found.size());
    for (size_t at = 0; at < found.size(); ++at) listed.set(at, found[at].c_str());
    return kj::READY_NOW;
  }

private:
  struct Entry {
    capnp::Capability::Client object;
    uint64_t serial;
  };

  class LeaseImpl final : public Lease::Server {
  public:
    LeaseImpl(NamesImpl& names, std::string name, uint64_t serial)
        : names(names), name(name), serial(serial) {}

    kj::Promise<void> renew(RenewContext context) override {
      auto found = names.names.find(name);
      KJ_REQUIRE(found != names.names.end() && found->second.serial == serial, "the lease has ended");
      context.getResults().setLeaseMs(0);
      return kj::READY_NOW;
    }

  private:
    // It is served by the process's only name service, which outlives it.
    NamesImpl& names;
    std::string name;
    uint64_t serial;
  };

  std::map<std::string, Entry> names;
  uint64_t serial = 0;
};

class Ear final : public Observer::Server {
public:
  explicit Ear(std::vector<int64_t>& heard) : heard(heard) {}

  kj::Promise<void> changed(ChangedContext context) override {
    heard.push_back(context.getParams().getValue());
    return kj::READY_NOW;
  }

private:
  std::vector<int64_t>& heard;
};

class Cases {
public:
  explicit Cases(capnp::EzRpcClient& client)
      : service(client.getMain<NameService>()),
        scope(client.getWaitScope()),
        timer(client.getIoProvider().getTimer()) {}

  bool run(const char* name, void (Cases::*one)()) {
    auto began = std::chrono::steady_clock::now();
    auto failed = kj::runCatchingExceptions([&]() { (this->*one)(); });
    std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
    std::cout << name << '\t' << (failed == nullptr ? "pass" : "fail") << '\t' << took.count() << '\t';
    KJ_IF_MAYBE (error, failed) std::cout << error->getDescription().cStr();
    std::cout << std::endl;
    return failed == nullptr;
  }

  void counter() {
    auto counter = make(factory(), 40);
    same("the sum", add(counter, 2), 42);
    same("the value", value(counter), 42);
    same("a negative sum", add(counter, -50), -8);
  }

  void pipelined() {
    auto counter = make(factory(), 5);
    for (int64_t by : {10, 100, 1000}) {
      auto request = counter.addRequest();
      request.setBy(by);
      counter = request.send().getCounter();
    }
    same("the value", value(counter), 1115);
  }

  void references() {
    auto request = factory().sumRequest();
    auto list = request.initCounters(3);
    list.set(0, make(factory(), 1));
    list.set(1, kj::heap<CounterImpl>(20));
    list.set(2, make(factory(), 300));
    same("the total", wait(request.send()).getTotal(), 321);
  }

  void byValue() {
    auto request = factory().echoRequest();
    auto record = request.initRecord();
    record.setName("häuser");
    record.setNumber(INT64_MIN);
    auto blob = record.initBlob(100000);
    for (size_t at = 0; at < blob.size(); ++at) blob[at] = at;
    record.initTags(2).set(1, "second");
    record.setCounter(kj::heap<CounterImpl>(7));
    auto answer = wait(request.send());
    auto echoed = answer.getRecord();
    KJ_REQUIRE(echoed.getName() == "häuser", echoed.getName());
    same("the number", echoed.getNumber(), INT64_MIN);
    same("the blob", echoed.getBlob().size(), 100000);
    same("a byte of it", echoed.getBlob()[99999], 99999 & 255);
    same("tags", echoed.getTags().size(), 2);
    KJ_REQUIRE(echoed.getTags()[1] == "second");
    same("its value", value(echoed.getCounter()), 7);
  }

  void exception() {
    auto request = factory().failRequest();
    request.setReason("as it was asked to");
    auto reason = failure([&]() { wait(request.send()); });
    KJ_REQUIRE(reason.getType() == kj::Exception::Type::FAILED, reason);
    auto told = std::string(reason.getDescription().cStr());
    KJ_REQUIRE(told.find("as it was asked to") != std::string::npos, reason);
    failure([&]() { value(named("nobody").castAs<Counter>()); });
  }

  void unimplemented() {
    auto reason = failure([&]() { value(named(FACTORY).castAs<Counter>()); });
    KJ_REQUIRE(reason.getType() == kj::Exception::Type::UNIMPLEMENTED, reason);
  }

  void release() {
    auto before = alive();
    {
      std::vector<Counter::Client> counters;
      for (int n = 0; n < 10; ++n) counters.push_back(make(factory(), n));
      for (int n = 0; n < 10; ++n) same("a value", value(counters[n]), n);
      same("alive", alive(), before + 10);
    }
    for (int look = 0; look < 100 && alive() != before; ++look) pause(20);
    same("alive", alive(), before);
  }

  void observer() {
    std::vector<int64_t> heard;
    auto counter = make(factory(), 0);
    auto request = counter.watchRequest();
    request.setObserver(kj::heap<Ear>(heard));
    wait(request.send());
    for (int by = 1; by < 6; ++by) add(counter, by);
    for (int look = 0; look < 100 && heard.size() < 5; ++look) pause(20);
    KJ_REQUIRE((heard == std::vector<int64_t>{1, 3, 6, 10, 15}), heard.size());
  }

  void names() {
    auto request = service.registerRequest();
    request.setName("interop/ours");
    request.setObject(Counter::Client(kj::heap<CounterImpl>(11)));
    auto lease = wait(request.send()).getLease();
    same("no lease", wait(lease.renewRequest().send()).getLeaseMs(), 0);
    same("its value", value(named("interop/ours").castAs<Counter>()), 11);
    auto listing = service.listRequest();
    listing.setPrefix("interop/");
    auto listed = wait(listing.send());
    same("names", listed.getNames().size(), 1);
    KJ_REQUIRE(listed.getNames()[0] == "interop/ours");
    auto gone = service.unregisterRequest();
    gone.setName("interop/ours");
    wait(gone.send());
    failure([&]() { wait(lease.renewRequest().send()); });
  }

  void givenUp() {
    auto request = factory().waitRequest();
    request.setMs(60000);
    auto reason = failure([&]() {
      timer.timeoutAfter(100 * kj::MILLISECONDS, request.send().ignoreResult()).wait(scope);
    });
    KJ_REQUIRE(reason.getType() == kj::Exception::Type::OVERLOADED, reason);
    auto brief = factory().waitRequest();
    brief.setMs(1);
    wait(brief.send());
    alive();
  }

private:
  NameService::Client service;
  kj::WaitScope& scope;
  kj::Timer& timer;

  template <typename T>
  capnp::Response<T> wait(capnp::RemotePromise<T>&& promise) {
    return timer.timeoutAfter(LIMIT, kj::Promise<capnp::Response<T>>(kj::mv(promise))).wait(scope);
  }

  void pause(int ms) { timer.afterDelay(ms * kj::MILLISECONDS).wait(scope); }

  capnp::Capability::Client named(const char* name) {
    auto request = service.resolveRequest();
    request.setName(name);
    return request.send().getObject();
  }

  CounterFactory::Client factory() { return named(FACTORY).castAs<CounterFactory>(); }

  Counter::Client make(CounterFactory::Client factory, int64_t start) {
    auto request = factory.makeRequest();
    request.setStart(start);
    return request.send().getCounter();
  }

  int64_t value(Counter::Client counter) { return wait(counter.valueRequest().send()).getValue(); }

  int64_t add(Counter::Client counter, int64_t by) {
    auto request = counter.addRequest();
    request.setBy(by);
    return wait(request.send()).getValue();
  }

  int64_t alive() { return wait(factory().aliveRequest().send()).getCount(); }

  void same(const char* what, int64_t value, int64_t wanted) {
    KJ_REQUIRE(value == wanted, what, value, wanted);
  }

  template <typename F>
  kj::Exception failure(F&& call) {
    KJ_IF_MAYBE (error, kj::runCatchingExceptions(kj::fwd<F>(call))) return kj::mv(*error);
    KJ_FAIL_REQUIRE("no exception");
  }
};

int call(const std::string& address) {
  capnp::EzRpcClient client(address.c_str());
  Cases cases(client);
  bool passed = true;
  passed &= cases.run("counter", &Cases::counter);
  passed &= cases.run("pipelined", &Cases::pipelined);
  passed &= cases.run("references", &Cases::references);
  passed &= cases.run("by_value", &Cases::byValue);
  passed &= cases.run("exception", &Cases::exception);
  passed &= cases.run("unimplemented", &Cases::unimplemented);
  passed &= cases.run("release", &Cases::release);
  passed &= cases.run("observer", &Cases::observer);
  passed &= cases.run("names", &Cases::names);
  passed &= cases.run("given_up", &Cases::givenUp);
  return passed ? 0 : 1;
}

int serve(const std::string& address) {
  auto io = kj::setupAsyncIo();
  auto listening = io.provider->getNetwork().parseAddress(address).wait(io.waitScope)->listen();
  CounterFactory::Client factory = kj::heap<FactoryImpl>(io.provider->getTimer());
  capnp::TwoPartyServer server(kj::heap<NamesImpl>(factory));
  server.listen(*listening).wait(io.waitScope);
  return 0;
}

}  // namespace

int main(int count, char** words) {
  if (count != 3) {
    std::cerr << "usage: " << words[0] << " call|serve PORT" << std::endl;
    return 2;
  }
  auto address = std::string("127.0.0.1:") + words[2];
  return words[1] == std::string("call") ? call(address) : serve(address);
}
