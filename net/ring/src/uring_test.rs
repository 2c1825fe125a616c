//! The driver alone, without a core above it.

use super::*;
use crate::op::Fd;
use std::os::fd::AsFd;

fn small() -> Uring {
    Uring::new(UringConfig {
        entries: 8,
        recv_buffers: 2,
        recv_buffer_bytes: 4096,
        registered_files: 4,
        features: Features::ALL,
    })
    .unwrap()
}

fn key(index: u32) -> SlotKey {
    SlotKey {
        index,
        generation: 0,
    }
}

fn temporary(uring: &Uring, name: &str) -> Fd {
    let path = std::env::temp_dir().join(format!("ringmill-uring-{name}-{}", std::process::id()));
    let options = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path);
    std::fs::remove_file(path).unwrap();
    Rc::new(uring.adopt(options.unwrap().into()))
}

/// Turns until `count` operations have completed.
fn complete(uring: &mut Uring, count: usize) -> Vec<Completion> {
    let mut out = Vec::new();
    let begun = Instant::now();
    while out.len() < count {
        assert!(begun.elapsed() < Duration::from_secs(20), "the ring hangs");
        uring
            .turn(Wait::Until(Some(Duration::from_secs(1))), &mut out)
            .unwrap();
    }
    out
}

/// The kernel is full of operations that wait, and there is more than the queue holds.
#[test]
fn what_found_no_place_is_not_slept_over() {
    let mut uring = small();
    let quiet = uring.event_fd().unwrap();
    let fd = temporary(&uring, "backlog");
    for _ in 0..30 {
        let poll = opcode::PollAdd::new(types::Fd(quiet.as_raw_fd()), libc::POLLIN as u32).build();
        uring.backlog.push_back(Batch {
            first: poll.user_data(CONTROL),
            linked: None,
        });
    }
    uring.submit(key(0), Op::Fstat { fd, out: None });
    let begun = Instant::now();
    assert_eq!(complete(&mut uring, 1)[0].slot, key(0));
    assert!(
        begun.elapsed() < Duration::from_millis(900),
        "it took a time-out to be seen"
    );
}

/// A message to another ring can fail; its core must wake all the same.
#[test]
fn a_bell_whose_message_fails_rings_by_its_eventfd() {
    let mut uring = small();
    let bell = Arc::new(Bell::new());
    let no_ring = std::fs::File::open("/dev/null").unwrap();
    // SAFETY: plain call; a negative result is checked.
    let event = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    assert!(event >= 0);
    // SAFETY: just made, owned by nobody else.
    let event = unsafe { OwnedFd::from_raw_fd(event) };
    let reader = std::fs::File::from(event.try_clone().unwrap());
    bell.hang(Some(no_ring.as_raw_fd()), event);
    assert!(uring.send_ring(&bell));
    uring.turn(Wait::Poll, &mut Vec::new()).unwrap();
    let mut value = [0; 8];
    io::Read::read_exact(&mut &reader, &mut value).expect("the eventfd was written");
    bell.take_down();
    assert!(!uring.send_ring(&bell), "a core that has ended has no ring");
}

/// Takes only the first of two linked entries, as a kernel without memory does.
#[test]
fn a_sync_that_was_torn_from_its_write_is_done_once_more() {
    let mut uring = small();
    let fd = temporary(&uring, "torn");
    uring.turn(Wait::Poll, &mut Vec::new()).unwrap();
    uring.submit(
        key(0),
        Op::Write {
            fd,
            offset: 0,
            bufs: vec![bytes::Bytes::from_static(b"torn")],
            sync: true,
        },
    );
    assert_eq!(uring.ring.submission().len(), 2);
    // SAFETY: no argument is passed; the entries' memory is the flight's.
    let taken = unsafe {
        uring
            .ring
            .submitter()
            .enter::<libc::sigset_t>(1, 0, 0, None)
    };
    assert_eq!(taken.unwrap(), 1);
    uring.tear_links();
    let done = complete(&mut uring, 1);
    assert_eq!((done[0].result, done[0].slot), (4, key(0)));
    assert!(uring.flights.iter().all(Option::is_none));
}

#[test]
fn a_torn_write_waits_for_a_sync_of_its_own() {
    let uring = small();
    let fd = temporary(&uring, "mend");
    let write = |sync| Op::Write {
        fd: fd.clone(),
        offset: 0,
        bufs: Vec::new(),
        sync,
    };
    let ended = |sync, torn, written, synced| {
        let mut flight = Flight::new(key(0), write(sync));
        flight.torn = torn;
        flight.note(0, written);
        flight.note(1, synced);
        (flight.mend(&uring.files).is_some(), flight.result)
    };
    assert_eq!(ended(true, false, 9, 0), (false, 9));
    assert_eq!(ended(true, true, 9, 0), (true, 9));
    assert_eq!(ended(true, true, 5, -libc::ECANCELED), (true, 5));
    assert_eq!(ended(true, true, -libc::ENOSPC, 0), (false, -libc::ENOSPC));
    assert_eq!(ended(true, false, 9, -libc::EIO), (false, -libc::EIO));
    assert_eq!(ended(false, true, 9, 0), (false, 9));
}

/// Torn from its write, a sync may end first. That it failed is told once (fsync(2)): the one
/// that would follow succeeds whatever was lost.
#[test]
fn a_sync_that_fails_before_its_write_has_ended_is_not_tried_again() {
    let uring = small();
    let write = Op::Write {
        fd: temporary(&uring, "first"),
        offset: 0,
        bufs: Vec::new(),
        sync: true,
    };
    let mut flight = Flight::new(key(0), write);
    flight.torn = true;
    flight.note(1, -libc::EIO);
    flight.note(0, 9);
    assert!(flight.mend(&uring.files).is_none());
    assert_eq!(flight.result, -libc::EIO);
}

#[test]
fn an_accepted_connection_sends_small_requests_at_once() {
    let mut uring = small();
    let listener = uring
        .socket(&crate::op::SocketSpec {
            bind: Some(crate::op::SocketAddress::Ip("127.0.0.1:0".parse().unwrap())),
            listen: Some(1),
            ..crate::op::SocketSpec::new(crate::op::SocketKind::Tcp)
        })
        .unwrap();
    let Ok(crate::op::SocketAddress::Ip(addr)) = uring.socket_addr(&listener, false) else {
        panic!("a TCP socket has an IP address");
    };
    uring.submit(
        key(0),
        Op::Accept {
            fd: Rc::new(listener),
        },
    );
    let _client = std::net::TcpStream::connect(addr).unwrap();
    let accepted = complete(&mut uring, 1).remove(0);
    let Payload::Descriptor(Descriptor::Real(stream)) = accepted.payload else {
        panic!("not a connection: {accepted:?}");
    };
    let nodelay = socket2::SockRef::from(&stream.fd.as_fd()).tcp_nodelay();
    assert!(nodelay.unwrap(), "inherited from the listener");
}
