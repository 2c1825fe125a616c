# The name service: what a client meets first on a connection, unless the server gives it another
# object. The Rust beside it is generated: see tests/schema.rs.

@0x9e934b98e105fd60;

interface NameService {
  # Objects by their names. What a client registers is its connection's: it goes with it.
  #
  # Names are 1 to 255 bytes long. Whoever asks for what cannot be done is told by an exception of
  # type `failed`, whoever asks for too much by one of type `overloaded`.

  resolve @0 (name :Text) -> (object :Capability);
  # The object that is registered under a name. An exception if there is none.

  register @1 (name :Text, object :Capability, leaseMs :UInt64 = 0) -> (lease :Lease);
  # Registers an object until it is unregistered, or until the connection ends. With a lease of so
  # many milliseconds it must be renewed before they are over; 0 is none. The one who registered a
  # name may register it anew, for another object or another lease; for others it is taken.
  #
  # The lease does not have to be kept: dropping it changes nothing.

  unregister @2 (name :Text);
  # Takes a name away that this connection has registered.

  list @3 (prefix :Text, after :Text, limit :UInt32) -> (names :List(Text), more :Bool);
  # Names that begin with `prefix` and come after `after`, in the order of their bytes: at most
  # `limit` of them (0 leaves that to the server). `more` says that others follow.
}

interface Lease {
  # The time that a registered name has left.

  renew @0 () -> (leaseMs :UInt64);
  # Begins the lease's time anew. Returns that time; 0 is no limit. An exception if the name was
  # unregistered or registered anew, or if the time was over.
}
