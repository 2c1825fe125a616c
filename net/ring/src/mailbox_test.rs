//! The mailboxes' bookkeeping on one core; what threads do to each other is in `model_test.rs`.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use crate::mailbox::{Sending, mesh};

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A task that counts how often it is woken.
fn task() -> (Arc<Count>, Waker) {
    let count = Arc::new(Count::default());
    (count.clone(), Waker::from(count))
}

fn poll(send: &mut Sending<'_, u32>, waker: &Waker) -> bool {
    Pin::new(send).poll(&mut Context::from_waker(waker)) == Poll::Ready(())
}

#[test]
fn who_waits_for_room_is_served_in_the_order_of_asking() {
    let mut ports = mesh::<u32>(2, 1);
    let (two, one) = (ports.pop().unwrap(), ports.pop().unwrap());
    assert_eq!(one.try_send(1, 0), Ok(()));
    let tasks: Vec<_> = (0..3).map(|_| task()).collect();
    let mut sends: Vec<_> = (1..4).map(|message| Some(one.send(1, message))).collect();
    for (send, (_, waker)) in sends.iter_mut().zip(&tasks) {
        assert!(!poll(send.as_mut().unwrap(), waker));
    }
    for message in 0..4 {
        assert_eq!(two.try_recv(), Some((0, message)));
        if let Some((next, _)) = tasks.get(message as usize) {
            assert!(
                next.0.load(Ordering::Relaxed) > 0,
                "{message} did not wake the next"
            );
        }
        // Polled in the wrong order, only the one whose turn it is sends.
        for (send, (_, waker)) in sends.iter_mut().zip(&tasks).rev() {
            if send.as_mut().is_some_and(|send| poll(send, waker)) {
                *send = None;
            }
        }
    }
    assert_eq!(two.try_recv(), None);
}

/// As in a `select!` whose other branches move on.
#[test]
fn a_send_that_is_polled_often_waits_in_one_place() {
    let ports = mesh::<u32>(2, 1);
    assert_eq!(ports[0].try_send(1, 0), Ok(()));
    let (count, waker) = task();
    let mut send = ports[0].send(1, 1);
    for _ in 0..100 {
        assert!(!poll(&mut send, &waker));
    }
    assert!(
        Arc::strong_count(&count) <= 4,
        "{} wakers",
        Arc::strong_count(&count)
    );
}

#[test]
fn a_send_that_is_dropped_passes_its_turn_on() {
    let ports = mesh::<u32>(2, 1);
    assert_eq!(ports[0].try_send(1, 0), Ok(()));
    let ((_, first), (second, waker)) = (task(), task());
    let mut gives_up = ports[0].send(1, 1);
    let mut stays = ports[0].send(1, 2);
    assert!(!poll(&mut gives_up, &first) && !poll(&mut stays, &waker));
    assert_eq!(second.0.load(Ordering::Relaxed), 0);
    drop(gives_up);
    assert_eq!(
        second.0.load(Ordering::Relaxed),
        1,
        "its own turn to wait for the lane"
    );
    assert!(!poll(&mut stays, &waker));
    assert_eq!(ports[1].try_recv(), Some((0, 0)));
    assert_eq!(second.0.load(Ordering::Relaxed), 2, "the lane has room");
    assert!(poll(&mut stays, &waker));
}

#[test]
fn a_send_to_a_dropped_port_waits_for_nothing() {
    let mut ports = mesh::<u32>(2, 1);
    let (two, one) = (ports.pop().unwrap(), ports.pop().unwrap());
    assert_eq!(one.try_send(1, 0), Ok(()));
    let (count, waker) = task();
    let mut send = one.send(1, 1);
    assert!(!poll(&mut send, &waker));
    drop(two);
    assert_eq!(count.0.load(Ordering::Relaxed), 1);
    assert!(poll(&mut send, &waker));
    assert_eq!(one.try_send(1, 2), Ok(()));
    assert_eq!(one.try_send(1, 3), Ok(()));
}
