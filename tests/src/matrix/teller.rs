//! A child process that tells what it does, a line each, until its standard input ends.

use std::io::{self, BufRead, BufReader};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often it is looked whether something has come.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// It, and what it has told so far.
#[derive(Debug)]
pub struct Teller<T> {
    child: Child,
    stdin: Option<ChildStdin>,
    told: Arc<Mutex<Vec<T>>>,
    reader: Option<JoinHandle<()>>,
}

impl<T: Clone + Send + 'static> Teller<T> {
    /// Starts it; lines that `parse` makes nothing of are passed over.
    pub fn start(
        mut command: Command,
        parse: impl Fn(&str) -> Option<T> + Send + 'static,
    ) -> io::Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let told = Arc::new(Mutex::new(Vec::new()));
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().expect("piped"));
        let here = Arc::clone(&told);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(one) = parse(&line) {
                    here.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(one);
                }
            }
        });
        Ok(Self {
            child,
            stdin,
            told,
            reader: Some(reader),
        })
    }

    /// Looks at what has been told so far.
    pub fn look<R>(&self, at: impl FnOnce(&[T]) -> R) -> R {
        at(&self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Has it come to its end, and gives all that it has told.
    pub fn end(mut self, patience: Duration) -> io::Result<Vec<T>> {
        drop(self.stdin.take());
        let mut status = None;
        wait_until(patience, || {
            status = self.child.try_wait().ok().flatten();
            match status {
                Some(_) => Ok(()),
                None => Err("the process does not end".to_owned()),
            }
        })?;
        if let Some(reader) = self.reader.take() {
            let panicked = |_| io::Error::other("the reader of its lines panicked");
            reader.join().map_err(panicked)?;
        }
        match status {
            Some(status) if status.success() => Ok(self.look(<[T]>::to_vec)),
            status => Err(io::Error::other(format!("it ended with {status:?}"))),
        }
    }
}

impl<T> Drop for Teller<T> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until `look` finds what it looks for; else what it says at last is the error.
pub fn wait_until(
    patience: Duration,
    mut look: impl FnMut() -> Result<(), String>,
) -> io::Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        match look() {
            Ok(()) => return Ok(()),
            Err(why) if Instant::now() > deadline => return Err(io::Error::other(why)),
            Err(_) => std::thread::sleep(LOOK_EVERY),
        }
    }
}
