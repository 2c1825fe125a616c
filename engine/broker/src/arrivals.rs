//! The requests of one connection as they come: what waits may be given up for what comes behind it.
//! Another node that follows asks for more while its last question waits for records.

use std::cell::Cell;
use std::rc::Rc;

use ringmill_ring::Notify;

/// The requests of one connection as they come.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    count: Cell<u64>,
    more: Notify,
}

impl Arrivals {
    pub(crate) fn on_request(&self) {
        self.count.set(self.count.get() + 1);
        self.more.notify_all();
    }

    /// What comes after the latest request.
    pub(crate) fn behind(self: &Rc<Self>) -> Behind {
        Behind {
            arrivals: Rc::clone(self),
            latest: self.count.get(),
        }
    }
}

/// What comes after a request of one connection.
#[derive(Debug)]
pub(crate) struct Behind {
    arrivals: Rc<Arrivals>,
    latest: u64,
}

impl Behind {
    /// Whether another request has come.
    pub(crate) fn has_come(&self) -> bool {
        self.arrivals.count.get() > self.latest
    }

    /// Waits until another request has come.
    pub(crate) async fn come(&self) {
        loop {
            let more = self.arrivals.more.notified();
            if self.has_come() {
                return;
            }
            more.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_comes_later_is_behind() {
        let arrivals: Rc<Arrivals> = Rc::default();
        arrivals.on_request();
        let first = arrivals.behind();
        assert!(!first.has_come());
        arrivals.on_request();
        let second = arrivals.behind();
        assert!(first.has_come());
        assert!(!second.has_come());
    }
}
