//! Counters behind references: the object that the interop cases speak to.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use capnp::{Error, Result};
use ringmill_ring::{sleep, spawn};

use crate::objects::counter_capnp::{counter, counter_factory, observer};

/// Observers of one counter.
const OBSERVERS_MAX: usize = 16;
/// The longest that `wait` waits.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// Makes counters, and knows how many of them there are.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    alive: Rc<Cell<u32>>,
}

impl Counters {
    /// A factory that has made none.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counters that something refers to.
    pub fn alive(&self) -> u32 {
        self.alive.get()
    }

    /// The factory, to be called.
    pub fn factory(&self) -> counter_factory::Client {
        capnp_rpc::new_client(self.clone())
    }

    /// A counter of this process.
    pub fn make(&self, start: i64) -> counter::Client {
        self.alive.set(self.alive.get() + 1);
        capnp_rpc::new_client(Counter {
            value: Cell::new(start),
            alive: self.alive.clone(),
            observers: RefCell::default(),
        })
    }
}

impl counter_factory::Server for Counters {
    async fn make(
        self: Rc<Self>,
        params: counter_factory::MakeParams,
        mut results: counter_factory::MakeResults,
    ) -> Result<()> {
        let counter = Counters::make(&self, params.get()?.get_start());
        results.get().set_counter(counter);
        Ok(())
    }

    async fn alive(
        self: Rc<Self>,
        _: counter_factory::AliveParams,
        mut results: counter_factory::AliveResults,
    ) -> Result<()> {
        results.get().set_count(Counters::alive(&self));
        Ok(())
    }

    async fn sum(
        self: Rc<Self>,
        params: counter_factory::SumParams,
        mut results: counter_factory::SumResults,
    ) -> Result<()> {
        let mut total = 0_i64;
        for counter in params.get()?.get_counters()? {
            let answer = counter?.value_request().send().promise.await?;
            total = total.wrapping_add(answer.get()?.get_value());
        }
        results.get().set_total(total);
        Ok(())
    }

    async fn echo(
        self: Rc<Self>,
        params: counter_factory::EchoParams,
        mut results: counter_factory::EchoResults,
    ) -> Result<()> {
        results.get().set_record(params.get()?.get_record()?)
    }

    async fn wait(
        self: Rc<Self>,
        params: counter_factory::WaitParams,
        _: counter_factory::WaitResults,
    ) -> Result<()> {
        let time = Duration::from_millis(params.get()?.get_ms());
        sleep(time.min(WAIT_MAX)).await;
        Ok(())
    }

    async fn fail(
        self: Rc<Self>,
        params: counter_factory::FailParams,
        _: counter_factory::FailResults,
    ) -> Result<()> {
        let reason = params.get()?.get_reason()?.to_string()?;
        Err(Error::failed(reason))
    }
}

/// One counter; it lives as long as something refers to it.
struct Counter {
    value: Cell<i64>,
    alive: Rc<Cell<u32>>,
    observers: RefCell<Vec<observer::Client>>,
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.alive.set(self.alive.get() - 1);
    }
}

impl Counter {
    /// Tells all who observe; nobody is waited for, and who cannot be told is forgotten.
    fn tell(self: &Rc<Self>, value: i64) {
        for observer in self.observers.borrow().iter() {
            let mut request = observer.changed_request();
            request.get().set_value(value);
            let (told, observer) = (request.send().promise, observer.clone());
            let counter = Rc::downgrade(self);
            spawn(async move {
                if told.await.is_ok() {
                    return;
                }
                if let Some(counter) = counter.upgrade() {
                    counter.forget(&observer);
                }
            });
        }
    }

    fn forget(&self, observer: &observer::Client) {
        let place = |client: &observer::Client| client.client.hook.get_ptr();
        let gone = place(observer);
        let mut observers = self.observers.borrow_mut();
        let at = observers.iter().position(|one| place(one) == gone);
        let forgotten = at.map(|at| observers.remove(at));
        drop(observers);
        drop(forgotten);
    }
}

impl counter::Server for Counter {
    async fn add(
        self: Rc<Self>,
        params: counter::AddParams,
        mut results: counter::AddResults,
    ) -> Result<()> {
        let value = self.value.get().wrapping_add(params.get()?.get_by());
        self.value.set(value);
        self.tell(value);
        let mut results = results.get();
        results.set_value(value);
        results.set_counter(capnp_rpc::new_client_from_rc(self));
        Ok(())
    }

    async fn value(
        self: Rc<Self>,
        _: counter::ValueParams,
        mut results: counter::ValueResults,
    ) -> Result<()> {
        results.get().set_value(self.value.get());
        Ok(())
    }

    async fn watch(
        self: Rc<Self>,
        params: counter::WatchParams,
        _: counter::WatchResults,
    ) -> Result<()> {
        let observer = params.get()?.get_observer()?;
        let mut observers = self.observers.borrow_mut();
        if observers.len() >= OBSERVERS_MAX {
            return Err(Error::overloaded(format!(
                "more than {OBSERVERS_MAX} observers"
            )));
        }
        observers.push(observer);
        Ok(())
    }
}
