//! What the parts of one connection share: what is to be sent, who holds what, and how it ends.
//!
//! The library writes its messages without waiting, so that they gather here; a task of its own
//! sends them, one piece at a time. The parts that wait for a change of the line are woken by any.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::mem;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use capnp::message::{Builder, HeapAllocator};
use capnp::{Error, ErrorKind};
use capnp_rpc::rpc_capnp::{exception, message};
use ringmill_ring::{Instant, now, timeout};

use crate::objects::framing::Frame;
use crate::objects::ledger::{Held, Ledger, Verdict};
use crate::objects::message::{self as summary, Outcome, Summary};
use crate::objects::options::ObjectOptions;
use crate::objects::redirect::{Redirects, Taker};
use crate::objects::rewrite;
use crate::objects::stream::ObjectStream;

/// Bytes of one send. Each must be done within [`ObjectOptions::send_time_max`].
const PIECE: usize = 64 << 10;
/// How long the last words to a peer may take to leave.
const FAREWELL_MAX: Duration = Duration::from_secs(1);
/// Bytes of a word.
const WORD: usize = 8;

/// Who waits for a change of a line; one at a time of each.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    /// Who runs the connection.
    Session,
    /// Who reads the next message.
    Reader,
    /// Who sends the last words.
    Closer,
    /// Who waits for the end.
    Driver,
    /// Who sends, once it has nothing to send any more.
    Writer,
}

/// The receiving half of the stream is in use.
pub(super) struct Receiving<'a>(&'a Line);

impl Drop for Receiving<'_> {
    fn drop(&mut self) {
        self.0.receiving.set(false);
        self.0.change();
    }
}

/// One connection, as its parts see it.
pub(super) struct Line {
    pub(super) options: ObjectOptions,
    /// Reading waits while much is to be sent: a server's does, a client's does not, so that the
    /// two never wait for each other.
    pauses: bool,
    ledger: RefCell<Ledger>,
    redirects: RefCell<Redirects>,
    /// Messages for the library that did not come over the stream, before those that do.
    made: RefCell<VecDeque<Frame>>,
    outgoing: RefCell<Outgoing>,
    /// When bytes were last received.
    heard_at: Cell<Instant>,
    /// No further call is taken.
    stopping: Cell<bool>,
    /// Why the connection is to end.
    failure: RefCell<Option<Error>>,
    /// All is sent, or lost.
    over: Cell<bool>,
    receiving: Cell<bool>,
    waiting: RefCell<[Option<Waker>; 5]>,
}

#[derive(Default)]
struct Outgoing {
    waiting: BytesMut,
    in_flight: usize,
    /// Nothing more is written.
    ending: bool,
    /// Nothing more can be sent, or all was.
    closed: bool,
    writer: Option<Waker>,
}

impl Outgoing {
    /// Nothing more is written after this.
    fn end(&mut self) {
        self.ending = true;
        self.wake_writer();
    }

    fn wake_writer(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }
}

impl Line {
    pub(super) fn new(options: ObjectOptions, pauses: bool) -> Rc<Self> {
        Rc::new(Line {
            options,
            pauses,
            ledger: RefCell::new(Ledger::new(options)),
            redirects: RefCell::default(),
            made: RefCell::default(),
            outgoing: RefCell::default(),
            heard_at: Cell::new(now()),
            stopping: Cell::new(false),
            failure: RefCell::default(),
            over: Cell::new(false),
            receiving: Cell::new(false),
            waiting: RefCell::default(),
        })
    }

    /// Wakes `cx` with the next change.
    pub(super) fn watch(&self, part: Part, cx: &Context<'_>) {
        match &mut self.waiting.borrow_mut()[part as usize] {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }

    fn change(&self) {
        let waiting = mem::take(&mut *self.waiting.borrow_mut());
        waiting.into_iter().flatten().for_each(Waker::wake);
    }

    pub(super) fn held(&self) -> Held {
        self.ledger.borrow().held()
    }

    pub(super) fn hear(&self) {
        self.heard_at.set(now());
    }

    pub(super) fn heard_at(&self) -> Instant {
        self.heard_at.get()
    }

    /// Takes no further call.
    pub(super) fn stop(&self) {
        self.stopping.set(true);
        self.change();
    }

    /// Ends the connection for this reason, of which the peer is told. The first reason stays.
    pub(super) fn fail(&self, reason: Error) {
        self.failure.borrow_mut().get_or_insert(reason);
        self.change();
    }

    pub(super) fn failure(&self) -> Option<Error> {
        self.failure.borrow().clone()
    }

    /// The connection is broken: nothing more is sent.
    fn break_off(&self, reason: Error) {
        let mut outgoing = self.outgoing.borrow_mut();
        outgoing.closed = true;
        outgoing.waiting = BytesMut::new();
        drop(outgoing);
        self.fail(reason);
    }

    /// Bytes that wait to be sent, or are being sent.
    fn outgoing_bytes(&self) -> usize {
        let outgoing = self.outgoing.borrow();
        outgoing.waiting.len() + outgoing.in_flight
    }

    /// Everything written is sent.
    pub(super) fn is_flushed(&self) -> bool {
        self.outgoing_bytes() == 0
    }

    /// Completes when there is room for what reading may cause to be sent.
    pub(super) async fn room(&self) {
        self.until(Part::Reader, || (!self.is_full()).then_some(()))
            .await;
    }

    /// Whether so much is to be sent that nothing should be read.
    fn is_full(&self) -> bool {
        self.pauses && self.outgoing_bytes() > self.options.outgoing_pause_bytes
    }

    /// Sends a message of the library's, in the order in which it comes.
    pub(super) fn send(&self, message: &Builder<HeapAllocator>) {
        let root = message.get_root_as_reader();
        let mut told = root.map_or(Summary::Other, summary::sent);
        match &mut told {
            Summary::Return { question, held, .. } if self.redirects.borrow().keeps(*question) => {
                *held = true;
                let question = *question;
                self.ledger.borrow_mut().on_sent(&told);
                self.keep(question, message);
            }
            Summary::Release { reference, count } => {
                let (reference, count) = (*reference, *count);
                self.ledger.borrow_mut().on_sent(&told);
                let told = self.redirects.borrow_mut().on_release(reference, count);
                match told {
                    0 => {}
                    told if told == count => self.write_out(message),
                    told => self.write_out(&release(reference, told)),
                }
            }
            _ => {
                self.ledger.borrow_mut().on_sent(&told);
                self.write_out(message);
            }
        }
    }

    fn write_out(&self, message: &Builder<HeapAllocator>) {
        let mut outgoing = self.outgoing.borrow_mut();
        if outgoing.closed || outgoing.ending {
            return;
        }
        put(&mut outgoing.waiting, message);
        outgoing.wake_writer();
        drop(outgoing);
        let max = self.options.outgoing_bytes_max;
        if self.outgoing_bytes() + self.redirects.borrow().bytes() > max {
            let reason = format!("more than {max} bytes wait to be sent");
            self.break_off(Error::overloaded(reason));
        }
    }

    /// Keeps the answer to a call, as its caller wants, and says no more than that.
    fn keep(&self, call: u32, answer: &Builder<HeapAllocator>) {
        let met = self
            .redirects
            .borrow_mut()
            .on_answer(call, Frame::of(answer));
        let mut kept = small();
        let mut told = kept.init_root::<message::Builder<'_>>().init_return();
        told.set_answer_id(call);
        told.set_release_param_caps(false);
        told.set_results_sent_elsewhere(());
        self.write_out(&kept);
        if let Some((taker, answer)) = met {
            self.hand_over(taker, answer);
        }
    }

    /// Answers a question of ours with what a call of the peer's came to.
    fn hand_over(&self, taker: Taker, mut answer: Frame) {
        let reading = self.options.reading();
        let turned = rewrite::turn(&mut answer, taker.question, taker.held, reading);
        let made = match turned {
            Ok(references) => {
                self.redirects.borrow_mut().on_borrow(&references);
                answer
            }
            Err(error) => answered(taker, &error),
        };
        self.make(made);
    }

    /// Gives the library a message that did not come over the stream.
    fn make(&self, frame: Frame) {
        let references_max = self.options.references_max;
        let told = summary::received(&frame, self.options.reading(), references_max);
        let taken = told.and_then(|told| {
            let mut ledger = self.ledger.borrow_mut();
            ledger.on_received(told, frame.size(), false)
        });
        match taken {
            Ok(_) => {
                self.made.borrow_mut().push_back(frame);
                self.change();
            }
            Err(error) => self.fail(error),
        }
    }

    /// The next message for the library that did not come over the stream.
    pub(super) fn next_made(&self) -> Option<Frame> {
        self.made.borrow_mut().pop_front()
    }

    /// Takes a received message: returns it if it is the library's to see.
    ///
    /// # Errors
    /// What the peer is told before the connection ends.
    pub(super) fn receive(&self, mut frame: Frame) -> Result<Option<Frame>, Error> {
        let reading = self.options.reading();
        let keeps = rewrite::settle(&mut frame, reading)?;
        let mut told = summary::received(&frame, reading, self.options.references_max)?;
        let call = match &mut told {
            Summary::Return {
                question,
                outcome: Outcome::TakenFrom(call),
                held,
                ..
            } => {
                let (question, held) = (*question, *held);
                return self.take(*call, Taker { question, held }).map(|()| None);
            }
            Summary::Finish { question, releases } if self.redirects.borrow().keeps(*question) => {
                // The peer never had the references in the answer, and so releases none.
                *releases = true;
                frame = self.let_go_of_call(*question);
                None
            }
            Summary::Call { question, .. } if keeps => Some(*question),
            _ => None,
        };
        let (bytes, stopping) = (frame.size(), self.stopping.get());
        let mut ledger = self.ledger.borrow_mut();
        let taken = ledger.on_received(told, bytes, stopping)?;
        drop(ledger);
        if let Some(call) = call {
            self.redirects.borrow_mut().on_call(call);
        }
        match taken {
            Verdict::Deliver => return Ok(Some(frame)),
            Verdict::Refuse {
                question,
                error,
                references,
            } => {
                self.let_go(&references);
                let (taker, held) = (question, true);
                self.send(&exception(taker, &error, held));
            }
            Verdict::LetGo(references) => self.let_go(&references),
        }
        Ok(None)
    }

    /// A question of ours is answered by what a call of the peer's came, or will come to.
    fn take(&self, call: u32, taker: Taker) -> Result<(), Error> {
        let met = self.redirects.borrow_mut().on_take(call, taker)?;
        if let Some((taker, answer)) = met {
            self.hand_over(taker, answer);
        }
        Ok(())
    }

    /// The peer lets go of a call whose results were kept. Returns what the library is told.
    fn let_go_of_call(&self, call: u32) -> Frame {
        let left = self.redirects.borrow_mut().on_finish(call);
        if let Some(taker) = left {
            let error = Error::failed("the call that was to answer was given up".into());
            self.make(answered(taker, &error));
        }
        let mut builder = small();
        let mut finish = builder.init_root::<message::Builder<'_>>().init_finish();
        finish.set_question_id(call);
        finish.set_release_result_caps(true);
        Frame::of(&builder)
    }

    /// Lets go of references that the peer passed and nobody took.
    fn let_go(&self, references: &[u32]) {
        for reference in references {
            self.write_out(&release(*reference, 1));
        }
    }

    /// Sends what is written and ends the stream; for no longer than a moment.
    pub(super) async fn close(self: Rc<Self>) {
        self.outgoing.borrow_mut().end();
        let closed = self.until(Part::Closer, || self.outgoing.borrow().closed.then_some(()));
        // Whoever does not listen to the last words misses them.
        let _ = timeout(FAREWELL_MAX, closed).await;
        self.outgoing.borrow_mut().closed = true;
        self.over.set(true);
        self.change();
    }

    /// Completes when the connection is closed.
    pub(super) async fn closed(self: Rc<Self>) {
        self.until(Part::Driver, || self.over.get().then_some(()))
            .await;
    }

    /// Waits for a change, as this part, until `done` has something.
    async fn until<T>(&self, part: Part, done: impl Fn() -> Option<T>) -> T {
        poll_fn(|cx| {
            self.watch(part, cx);
            done().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Runs what reads until the connection is to end, or until there is a message that did not
    /// come over the stream.
    ///
    /// # Errors
    /// The reason of the end.
    pub(super) async fn next_message(
        &self,
        reading: impl Future<Output = Result<Option<Frame>, Error>>,
    ) -> Result<Option<Frame>, Error> {
        self.receiving.set(true);
        let _receiving = Receiving(self);
        let mut reading = pin!(reading);
        poll_fn(|cx| {
            if let Some(reason) = self.failure() {
                return Poll::Ready(Err(reason));
            }
            if let Some(made) = self.next_made() {
                return Poll::Ready(Ok(Some(made)));
            }
            self.watch(Part::Reader, cx);
            reading.as_mut().poll(cx)
        })
        .await
    }

    fn poll_piece(&self, cx: &mut Context<'_>) -> Poll<BytesMut> {
        let mut outgoing = self.outgoing.borrow_mut();
        if outgoing.waiting.is_empty() && !outgoing.ending {
            outgoing.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = outgoing.waiting.len().min(PIECE);
        outgoing.in_flight = count;
        Poll::Ready(outgoing.waiting.split_to(count))
    }

    fn on_piece_sent(&self) {
        let was_full = self.is_full();
        self.outgoing.borrow_mut().in_flight = 0;
        if was_full {
            // Nothing is read meanwhile: that it takes something is the peer's sign of life.
            self.hear();
        }
        let has_room = was_full && !self.is_full();
        if has_room || (self.stopping.get() && self.is_flushed()) {
            self.change();
        }
    }

    /// Reads what the peer still sends, and lets it go: what is not read when a stream closes
    /// takes our last words along.
    async fn linger(&self, stream: &ObjectStream) {
        self.until(Part::Writer, || (!self.receiving.get()).then_some(()))
            .await;
        let mut unread = BytesMut::new();
        while stream.recv(&mut unread).await.is_ok_and(|count| count > 0) {
            unread.clear();
        }
    }

    /// Sends what is written until the end, or until the connection breaks.
    pub(super) async fn write(self: Rc<Self>, stream: ObjectStream) {
        let limit = self.options.send_time_max;
        loop {
            let piece = poll_fn(|cx| self.poll_piece(cx)).await;
            let ending = piece.is_empty();
            let sent = async {
                match ending {
                    true => stream.end().await,
                    false => stream.send(piece.freeze()).await,
                }
            };
            match timeout(limit, sent).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return self.break_off(lost(&error)),
                Err(_) => {
                    let reason = format!("the peer took nothing for {limit:?}");
                    return self.break_off(Error::disconnected(reason));
                }
            }
            self.on_piece_sent();
            if ending {
                self.linger(&stream).await;
                self.outgoing.borrow_mut().closed = true;
                return self.change();
            }
        }
    }
}

/// What is said of a connection that broke.
pub(super) fn lost(error: &std::io::Error) -> Error {
    Error::disconnected(format!("the connection broke: {error}"))
}

fn release(reference: u32, count: u32) -> Builder<HeapAllocator> {
    let mut builder = small();
    let mut release = builder.init_root::<message::Builder<'_>>().init_release();
    release.set_id(reference);
    release.set_reference_count(count);
    builder
}

/// An answer that is an error.
fn exception(question: u32, error: &Error, held: bool) -> Builder<HeapAllocator> {
    let mut builder = small();
    let mut answer = builder.init_root::<message::Builder<'_>>().init_return();
    answer.set_answer_id(question);
    answer.set_release_param_caps(false);
    answer.set_no_finish_needed(!held);
    let mut exception = answer.init_exception();
    exception.set_type(match error.kind {
        ErrorKind::Overloaded => exception::Type::Overloaded,
        ErrorKind::Disconnected => exception::Type::Disconnected,
        _ => exception::Type::Failed,
    });
    exception.set_reason(&error.extra);
    builder
}

/// The same as the peer's answer to a question of ours.
fn answered(taker: Taker, error: &Error) -> Frame {
    Frame::of(&exception(taker.question, error, taker.held))
}

fn small() -> Builder<HeapAllocator> {
    Builder::new(HeapAllocator::new().first_segment_words(16))
}

/// Appends a message in its framing.
fn put(into: &mut BytesMut, message: &Builder<HeapAllocator>) {
    let segments = message.get_segments_for_output();
    let count = segments.len();
    into.reserve((count / 2 + 1) * WORD + segments.iter().map(|s| s.len()).sum::<usize>());
    into.put_u32_le(count as u32 - 1);
    for segment in segments.iter() {
        into.put_u32_le((segment.len() / WORD) as u32);
    }
    if count.is_multiple_of(2) {
        into.put_u32_le(0);
    }
    for segment in segments.iter() {
        into.put_slice(segment);
    }
}
