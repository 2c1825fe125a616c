//! Standard input for commands on the ring: a thread reads, since a terminal or a pipe may block,
//! and hands over whole lines in chunks, one when one is asked for.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use futures_channel::oneshot;

/// Bytes of a chunk, but for a last line that is longer.
const CHUNK: usize = 64 << 10;
/// The longest line, which is as long as a record may be by far.
const LINE_MAX: u64 = 256 << 20;

type Answer = io::Result<Vec<u8>>;

/// Standard input, read ahead by one chunk.
pub(crate) struct Lines {
    requests: Sender<oneshot::Sender<Answer>>,
    ahead: Option<oneshot::Receiver<Answer>>,
}

impl Lines {
    /// Begins to read.
    pub(crate) fn start() -> io::Result<Self> {
        let (requests, asked) = channel();
        thread::Builder::new()
            .name("stdin".into())
            .spawn(move || serve(&asked, io::stdin().lock()))?;
        let mut lines = Self {
            requests,
            ahead: None,
        };
        lines.ask();
        Ok(lines)
    }

    fn ask(&mut self) {
        let (answer, ahead) = oneshot::channel();
        // a thread that is gone is seen when its answer does not come
        let _ = self.requests.send(answer);
        self.ahead = Some(ahead);
    }

    /// The next whole lines, with their ends; empty at the end of the input.
    pub(crate) async fn next(&mut self) -> io::Result<Vec<u8>> {
        let Some(ahead) = self.ahead.take() else {
            return Ok(Vec::new());
        };
        let chunk = ahead.await.map_err(io::Error::other)??;
        if !chunk.is_empty() {
            self.ask();
        }
        Ok(chunk)
    }
}

fn serve(asked: &Receiver<oneshot::Sender<Answer>>, mut input: impl BufRead) {
    for answer in asked {
        let chunk = chunk(&mut input);
        if answer.send(chunk).is_err() {
            return;
        }
    }
}

/// What is there without waiting for more, up to the end of its last line.
fn chunk(input: &mut impl BufRead) -> Answer {
    let mut chunk = Vec::new();
    let here = input.fill_buf()?;
    let take = here.len().min(CHUNK);
    chunk.extend_from_slice(&here[..take]);
    input.consume(take);
    if !chunk.is_empty() && chunk.last() != Some(&b'\n') {
        input.take(LINE_MAX).read_until(b'\n', &mut chunk)?;
    }
    Ok(chunk)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_end_where_lines_end() {
        for capacity in [1, 2, 3, 7, 100] {
            let text = &b"one\ntwo\n\nfour without an end"[..];
            let mut input = io::BufReader::with_capacity(capacity, text);
            let mut all = Vec::new();
            loop {
                let next = chunk(&mut input).unwrap();
                if next.is_empty() {
                    break;
                }
                all.extend_from_slice(&next);
                assert!(all.len() == text.len() || next.ends_with(b"\n"));
            }
            assert_eq!(all, text);
        }
    }
}
