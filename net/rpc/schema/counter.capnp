# What examples, tests and `cargo xtask interop` speak: counters, handed out by reference. The Rust
# beside it is generated: see tests/schema.rs.

@0xe0b546685804a49d;

interface Counter {
  add @0 (by :Int64) -> (value :Int64, counter :Counter);
  # Adds, and returns the sum and the counter itself, for calls in a chain.

  value @1 () -> (value :Int64);

  watch @2 (observer :Observer);
  # Tells an observer of each further sum, until it cannot be told any more.
}

interface Observer {
  changed @0 (value :Int64);
}

interface CounterFactory {
  make @0 (start :Int64) -> (counter :Counter);
  # A new counter. It lives as long as there is a reference to it.

  alive @1 () -> (count :UInt32);
  # How many counters there are.

  sum @2 (counters :List(Counter)) -> (total :Int64);
  # Asks each counter for its value, wherever it lives, and adds them up.

  echo @3 (record :Record) -> (record :Record);
  # The same record, its fields passed by value and its counter by reference.

  wait @4 (ms :UInt64, blob :Data);
  # Returns after so many milliseconds, whatever it is given to keep.

  fail @5 (reason :Text);
  # Fails with this reason.
}

struct Record {
  name @0 :Text;
  number @1 :Int64;
  blob @2 :Data;
  tags @3 :List(Text);
  counter @4 :Counter;
}
