//! How calls are named on the wire.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tonic::Status;

use super::super::whole::WholeAnswer;

const CLIENT: HeaderName = HeaderName::from_static("ringmill-call-client");
const NUMBER: HeaderName = HeaderName::from_static("ringmill-call-number");
const SETTLED: HeaderName = HeaderName::from_static("ringmill-call-settled");
/// In requests, the start of the server that is meant; in refusals, the one that it has.
const SERVER: HeaderName = HeaderName::from_static("ringmill-call-server");
const WINDOW: HeaderName = HeaderName::from_static("ringmill-call-window-ms");

/// A call's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::styles) struct CallName {
    /// Who calls.
    pub client: u128,
    /// Which of its calls.
    pub number: u64,
    /// Numbers below it are of no more interest to the client.
    pub settled: u64,
    /// The start of the server that it is meant for; 0 asks for it.
    pub server: u64,
}

impl CallName {
    pub(in crate::styles) fn write(&self, headers: &mut HeaderMap) {
        headers.insert(CLIENT, ascii(format!("{:032x}", self.client)));
        headers.insert(NUMBER, self.number.into());
        headers.insert(SETTLED, self.settled.into());
        headers.insert(SERVER, ascii(format!("{:016x}", self.server)));
    }

    /// The name that a request has; nothing if it has none.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` if it has half a name, or one without sense.
    pub(super) fn read(headers: &HeaderMap) -> Result<Option<Self>, Status> {
        if !headers.contains_key(CLIENT) {
            return Ok(None);
        }
        Ok(Some(CallName {
            client: hex(headers, &CLIENT, 32)?,
            number: decimal(headers, &NUMBER)?,
            settled: decimal(headers, &SETTLED)?,
            server: hex(headers, &SERVER, 16)? as u64,
        }))
    }
}

fn ascii(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("hexadecimal digits")
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<&'a str, Status> {
    let text = headers.get(name).and_then(|value| value.to_str().ok());
    text.ok_or_else(|| malformed(name))
}

fn hex(headers: &HeaderMap, name: &HeaderName, digits: usize) -> Result<u128, Status> {
    let text = text(headers, name)?;
    let whole = text.len() == digits && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    let number = u128::from_str_radix(text, 16).ok().filter(|_| whole);
    number.ok_or_else(|| malformed(name))
}

fn decimal(headers: &HeaderMap, name: &HeaderName) -> Result<u64, Status> {
    let number = text(headers, name)?.parse::<u64>();
    // One more must be a number, too.
    let number = number.ok().filter(|number| *number < u64::MAX);
    number.ok_or_else(|| malformed(name))
}

fn malformed(name: &HeaderName) -> Status {
    Status::invalid_argument(format!("malformed {name}"))
}

/// A call was meant for another start of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The present start.
    pub server: u64,
    /// The window that the server states.
    pub window: Duration,
}

impl Refusal {
    pub(super) fn write(&self, headers: &mut HeaderMap) {
        headers.insert(SERVER, ascii(format!("{:016x}", self.server)));
        let window = u64::try_from(self.window.as_millis()).unwrap_or(u64::MAX);
        headers.insert(WINDOW, window.into());
    }

    /// What an answer says, if it is a refusal.
    pub(super) fn of(answer: &WholeAnswer) -> Option<Self> {
        let server = u64::from_str_radix(answer.header(&SERVER)?, 16).ok()?;
        let window = answer.header(&WINDOW)?.parse().ok()?;
        let window = Duration::from_millis(window);
        // 0 is nobody's.
        (server != 0).then_some(Refusal { server, window })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: CallName = CallName {
        client: 1 << 127 | 7,
        number: 12,
        settled: 10,
        server: 0xabc,
    };

    #[test]
    fn a_name_is_read_as_it_was_written() {
        let mut headers = HeaderMap::new();
        assert_eq!(CallName::read(&headers).unwrap(), None);
        NAME.write(&mut headers);
        assert_eq!(CallName::read(&headers).unwrap(), Some(NAME));
    }

    #[test]
    fn a_name_without_sense_is_refused() {
        for (name, value) in [
            (CLIENT, "12"),
            (CLIENT, "+0000000000000000000000000000001"),
            (NUMBER, "-1"),
            (NUMBER, "18446744073709551615"),
            (SETTLED, "x"),
            (SERVER, ""),
        ] {
            let mut headers = HeaderMap::new();
            NAME.write(&mut headers);
            headers.insert(name.clone(), HeaderValue::from_static(value));
            let refused = CallName::read(&headers).unwrap_err();
            assert_eq!(
                refused.code(),
                tonic::Code::InvalidArgument,
                "{name} {value}"
            );
        }
    }
}
