//! Messages as trees of named fields: what is compared.
//!
//! The protocol crate's types have one description of themselves that names every field: their
//! `Debug` form. It is read back here, so that no message needs code of its own to be compared.

use bytes::Bytes;
use ringmill_wire::batch::Batches;
use ringmill_wire::kafka_protocol::messages::ResponseKind;
use thiserror::Error;

/// A value of a message.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tree {
    /// A number, text in quotes, bytes, or `None`.
    Leaf(String),
    /// An array.
    List(Vec<Tree>),
    /// Named fields.
    Fields(Vec<(String, Tree)>),
}

/// The text is no `Debug` form.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("not the form of a message, from byte {at} on: {text}")]
pub struct NotATree {
    at: usize,
    text: String,
}

impl Tree {
    /// A response as a tree; record batches of a fetch are taken apart too.
    pub fn of(response: &ResponseKind) -> Result<Self, NotATree> {
        let ResponseKind::Fetch(fetch) = response else {
            return Self::read(&format!("{response:?}"));
        };
        let mut fetch = fetch.clone();
        let mut records = Vec::new();
        for topic in &mut fetch.responses {
            for partition in &mut topic.partitions {
                records.push(partition.records.take());
            }
        }
        let mut tree = Self::read(&format!("{fetch:?}"))?;
        let mut records = records.into_iter();
        tree.each("responses", |topic| {
            topic.each("partitions", |partition| {
                let found = records.next().flatten().unwrap_or_default();
                partition.set("records", batches(&found));
            });
        });
        Ok(tree)
    }

    /// Reads a `Debug` form. `Some` and newtypes vanish: what they hold stands for them.
    pub fn read(text: &str) -> Result<Self, NotATree> {
        let mut reader = Reader { text, at: 0 };
        let tree = reader.value()?;
        if reader.at == text.len() {
            return Ok(tree);
        }
        Err(reader.stuck())
    }

    /// Each element of the list in a field.
    fn each(&mut self, field: &str, mut visit: impl FnMut(&mut Self)) {
        if let Some(Self::List(items)) = self.field_mut(field) {
            items.iter_mut().for_each(&mut visit);
        }
    }

    fn field_mut(&mut self, name: &str) -> Option<&mut Self> {
        let Self::Fields(fields) = self else {
            return None;
        };
        let found = fields.iter_mut().find(|(field, _)| field == name);
        found.map(|(_, value)| value)
    }

    fn set(&mut self, name: &str, value: Self) {
        if let Some(field) = self.field_mut(name) {
            *field = value;
        }
    }

    /// The value of a field.
    pub fn field(&self, name: &str) -> Option<&Self> {
        let Self::Fields(fields) = self else {
            return None;
        };
        fields
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, v)| v)
    }

    /// The text of a leaf.
    pub fn leaf(&self) -> Option<&str> {
        match self {
            Self::Leaf(text) => Some(text),
            Self::List(_) | Self::Fields(_) => None,
        }
    }

    /// Every error code in it that is not 0.
    pub fn error_codes(&self) -> Vec<i16> {
        match self {
            Self::Leaf(_) => Vec::new(),
            Self::List(items) => items.iter().flat_map(Self::error_codes).collect(),
            Self::Fields(fields) => {
                let codes = fields.iter().flat_map(|(name, value)| {
                    match (name.as_str(), value.leaf().map(str::parse::<i16>)) {
                        ("error_code", Some(Ok(code))) if code != 0 => vec![code],
                        _ => value.error_codes(),
                    }
                });
                codes.collect()
            }
        }
    }
}

/// Whether a batch's times are its broker's: those of markers, and of a topic with LogAppendTime.
fn is_by_clock(attributes: i16) -> bool {
    const LOG_APPEND_TIME: i16 = 1 << 3;
    const CONTROL: i16 = 1 << 5;
    attributes & (LOG_APPEND_TIME | CONTROL) != 0
}

/// The whole batches at the front of a fetched run of bytes. What follows them is the beginning of
/// a batch that the limit cut, which no client reads.
fn batches(bytes: &Bytes) -> Tree {
    let mut found = Vec::new();
    for batch in Batches::new(bytes) {
        let Ok((_, batch)) = batch else { break };
        let mut fields = match Tree::read(&format!("{:?}", batch.header())) {
            Ok(Tree::Fields(fields)) => fields,
            _ => Vec::new(),
        };
        if is_by_clock(batch.header().attributes) {
            for (name, value) in &mut fields {
                let is_time = matches!(name.as_str(), "base_timestamp" | "max_timestamp");
                if is_time && !value.leaf().is_some_and(|time| time.starts_with('-')) {
                    *value = Tree::Leaf("a time".to_owned());
                }
            }
        }
        let body = Bytes::copy_from_slice(batch.records_bytes());
        fields.push(("body".to_owned(), Tree::Leaf(format!("{body:?}"))));
        let valid = batch.check_crc().is_ok();
        fields.push(("crc_is_right".to_owned(), Tree::Leaf(valid.to_string())));
        found.push(Tree::Fields(fields));
    }
    Tree::List(found)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn stuck(&self) -> NotATree {
        let text = self.rest().chars().take(40).collect();
        NotATree { at: self.at, text }
    }

    fn take(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn expect(&mut self, token: &str) -> Result<(), NotATree> {
        match self.take(token) {
            true => Ok(()),
            false => Err(self.stuck()),
        }
    }

    fn value(&mut self) -> Result<Tree, NotATree> {
        if self.take("[") {
            return Ok(Tree::List(self.items("]", Self::value)?));
        }
        if self.take("{") {
            let entries = self.items("}", |reader| {
                let key = reader.value()?;
                reader.expect(": ")?;
                Ok(Tree::List(vec![key, reader.value()?]))
            })?;
            return Ok(Tree::List(entries));
        }
        if self.rest().starts_with('"') || self.rest().starts_with("b\"") {
            return self.quoted();
        }
        let word = self.word()?;
        if self.take(" { ") {
            let fields = self.items(" }", |reader| {
                let name = reader.word()?.to_owned();
                reader.expect(": ")?;
                Ok((name, reader.value()?))
            })?;
            return Ok(Tree::Fields(fields));
        }
        if self.take("(") {
            let mut items = self.items(")", Self::value)?;
            return Ok(match items.len() {
                1 => items.remove(0),
                _ => Tree::List(items),
            });
        }
        Ok(Tree::Leaf(word.to_owned()))
    }

    fn items<T>(
        &mut self,
        end: &str,
        mut item: impl FnMut(&mut Self) -> Result<T, NotATree>,
    ) -> Result<Vec<T>, NotATree> {
        let mut items = Vec::new();
        if self.take(end) {
            return Ok(items);
        }
        loop {
            items.push(item(self)?);
            if self.take(end) {
                return Ok(items);
            }
            self.expect(", ")?;
        }
    }

    fn word(&mut self) -> Result<&'a str, NotATree> {
        let rest = self.rest();
        let ends = |c: char| "{}()[],: \"".contains(c);
        let len = rest.find(ends).unwrap_or(rest.len());
        if len == 0 {
            return Err(self.stuck());
        }
        self.at += len;
        Ok(&rest[..len])
    }

    fn quoted(&mut self) -> Result<Tree, NotATree> {
        let rest = self.rest();
        let start = rest.find('"').expect("the caller saw it") + 1;
        let mut escaped = false;
        for (at, c) in rest[start..].char_indices() {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => {
                    let end = start + at + 1;
                    self.at += end;
                    return Ok(Tree::Leaf(rest[..end].to_owned()));
                }
                _ => {}
            }
        }
        Err(self.stuck())
    }
}

#[cfg(test)]
mod tests {
    use ringmill_wire::StrBytes;
    use ringmill_wire::kafka_protocol::messages::create_topics_response::CreatableTopicResult;
    use ringmill_wire::kafka_protocol::messages::{CreateTopicsResponse, TopicName};

    use super::*;

    #[test]
    fn a_message_is_read_back_field_by_field() {
        let name = StrBytes::from_static_str("a \"quoted\" { name }");
        let topic = CreatableTopicResult::default()
            .with_name(TopicName(name))
            .with_error_code(36)
            .with_error_message(None);
        let response = CreateTopicsResponse::default().with_topics(vec![topic]);
        let tree = Tree::of(&ResponseKind::CreateTopics(response)).unwrap();
        assert_eq!(tree.field("throttle_time_ms").unwrap().leaf(), Some("0"));
        let Some(Tree::List(topics)) = tree.field("topics") else {
            panic!("a list: {tree:?}");
        };
        let name = topics[0].field("name").unwrap().leaf();
        assert_eq!(name, Some(r#""a \"quoted\" { name }""#));
        assert_eq!(
            topics[0].field("error_message").unwrap().leaf(),
            Some("None")
        );
        assert_eq!(tree.error_codes(), [36]);
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for text in ["", "A { b", "A { b: }", "[1, 2", "\"open", "1 2"] {
            assert!(Tree::read(text).is_err(), "{text}");
        }
    }
}
