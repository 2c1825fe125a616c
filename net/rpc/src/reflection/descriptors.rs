//! Which file defines what: an index over compiled protobuf files.
//!
//! Files are handed out byte for byte as they were given: a decoded one would have lost the options
//! that are not known here.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto};

/// A `google.protobuf.FileDescriptorSet` whose files are left as bytes.
#[derive(Clone, PartialEq, Message)]
struct RawSet {
    #[prost(bytes = "vec", repeated, tag = "1")]
    file: Vec<Vec<u8>>,
}

/// Bytes that are no descriptors.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a FileDescriptorSet: {0}")]
pub struct NotDescriptors(#[from] prost::DecodeError);

#[derive(Debug)]
struct File {
    bytes: Vec<u8>,
    imports: Vec<String>,
}

/// Files by name, symbol and extension.
#[derive(Debug, Default)]
pub(crate) struct Descriptors {
    files: BTreeMap<String, File>,
    /// Full names, without a leading dot, to the files that define them.
    symbols: BTreeMap<String, String>,
    /// By extended message: field numbers, and the files of their extensions.
    extensions: BTreeMap<String, BTreeMap<i32, String>>,
    services: BTreeSet<String>,
}

impl Descriptors {
    /// Adds the files of a set; one that is known by its name already is skipped.
    pub(crate) fn add(&mut self, set: &[u8]) -> Result<(), NotDescriptors> {
        for bytes in RawSet::decode(set)?.file {
            let file = FileDescriptorProto::decode(bytes.as_slice())?;
            if !self.files.contains_key(file.name()) {
                self.add_file(&file, bytes);
            }
        }
        Ok(())
    }

    fn add_file(&mut self, file: &FileDescriptorProto, bytes: Vec<u8>) {
        let (name, package) = (file.name(), file.package());
        for message in &file.message_type {
            self.add_message(name, package, message);
        }
        for kind in &file.enum_type {
            self.add_enum(name, package, kind);
        }
        for extension in &file.extension {
            self.add_extension(name, package, extension);
        }
        for service in &file.service {
            let full = self.add_symbol(name, package, service.name());
            for method in &service.method {
                self.add_symbol(name, &full, method.name());
            }
            self.services.insert(full);
        }
        let imports = file.dependency.clone();
        self.files.insert(name.to_owned(), File { bytes, imports });
    }

    /// Returns the full name.
    fn add_symbol(&mut self, file: &str, scope: &str, name: &str) -> String {
        let full = match scope {
            "" => name.to_owned(),
            _ => format!("{scope}.{name}"),
        };
        self.symbols.insert(full.clone(), file.to_owned());
        full
    }

    /// Depth is bounded by the decoder, which gives up at 100 messages within each other.
    fn add_message(&mut self, file: &str, scope: &str, message: &DescriptorProto) {
        let full = self.add_symbol(file, scope, message.name());
        for nested in &message.nested_type {
            self.add_message(file, &full, nested);
        }
        for kind in &message.enum_type {
            self.add_enum(file, &full, kind);
        }
        for field in &message.field {
            self.add_symbol(file, &full, field.name());
        }
        for one_of in &message.oneof_decl {
            self.add_symbol(file, &full, one_of.name());
        }
        for extension in &message.extension {
            self.add_extension(file, &full, extension);
        }
    }

    fn add_enum(&mut self, file: &str, scope: &str, kind: &prost_types::EnumDescriptorProto) {
        let full = self.add_symbol(file, scope, kind.name());
        for value in &kind.value {
            self.add_symbol(file, &full, value.name());
        }
    }

    fn add_extension(&mut self, file: &str, scope: &str, extension: &FieldDescriptorProto) {
        self.add_symbol(file, scope, extension.name());
        let extended = extension.extendee().trim_start_matches('.').to_owned();
        let numbers = self.extensions.entry(extended).or_default();
        numbers.insert(extension.number(), file.to_owned());
    }

    /// A file and all that it needs, the file first.
    pub(crate) fn file(&self, name: &str) -> Option<Vec<Vec<u8>>> {
        self.files.get(name)?;
        let (mut wanted, mut seen) = (vec![name], BTreeSet::from([name]));
        let mut found = Vec::new();
        while let Some(name) = wanted.pop() {
            // An import that was not given is nobody's fault but its giver's.
            let Some(file) = self.files.get(name) else {
                continue;
            };
            found.push(file.bytes.clone());
            let imports = file.imports.iter().map(String::as_str);
            wanted.extend(imports.filter(|import| seen.insert(*import)));
        }
        Some(found)
    }

    /// The file that defines a message, service, method, …
    pub(crate) fn defining(&self, symbol: &str) -> Option<Vec<Vec<u8>>> {
        self.file(self.symbols.get(symbol)?)
    }

    /// The file of one extension of a message.
    pub(crate) fn extending(&self, message: &str, number: i32) -> Option<Vec<Vec<u8>>> {
        self.file(self.extensions.get(message)?.get(&number)?)
    }

    /// The numbers of all extensions of a message; nothing if there is no such message.
    pub(crate) fn extensions_of(&self, message: &str) -> Option<Vec<i32>> {
        let numbers = self.extensions.get(message);
        if numbers.is_none() && !self.symbols.contains_key(message) {
            return None;
        }
        Some(
            numbers
                .into_iter()
                .flat_map(BTreeMap::keys)
                .copied()
                .collect(),
        )
    }

    /// The full names of all services.
    pub(crate) fn services(&self) -> impl Iterator<Item = &str> {
        self.services.iter().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(name: &str) -> DescriptorProto {
        DescriptorProto {
            name: Some(name.into()),
            ..DescriptorProto::default()
        }
    }

    /// `b.proto` imports `a.proto`, extends its message, and has a service.
    fn two_files() -> Vec<u8> {
        let a = FileDescriptorProto {
            name: Some("a.proto".into()),
            package: Some("p".into()),
            message_type: vec![DescriptorProto {
                nested_type: vec![message("Inner")],
                ..message("Outer")
            }],
            ..FileDescriptorProto::default()
        };
        let b = FileDescriptorProto {
            name: Some("b.proto".into()),
            package: Some("p.q".into()),
            dependency: vec!["a.proto".into(), "missing.proto".into()],
            extension: vec![FieldDescriptorProto {
                name: Some("more".into()),
                number: Some(100),
                extendee: Some(".p.Outer".into()),
                ..FieldDescriptorProto::default()
            }],
            service: vec![prost_types::ServiceDescriptorProto {
                name: Some("Shop".into()),
                method: vec![prost_types::MethodDescriptorProto {
                    name: Some("Buy".into()),
                    ..prost_types::MethodDescriptorProto::default()
                }],
                ..prost_types::ServiceDescriptorProto::default()
            }],
            ..FileDescriptorProto::default()
        };
        let file = vec![a.encode_to_vec(), b.encode_to_vec()];
        RawSet { file }.encode_to_vec()
    }

    fn names(files: Option<Vec<Vec<u8>>>) -> Vec<String> {
        let decoded = files.unwrap_or_default().into_iter().map(|bytes| {
            let file = FileDescriptorProto::decode(bytes.as_slice()).unwrap();
            file.name().to_owned()
        });
        decoded.collect()
    }

    #[test]
    fn everything_is_found_by_its_full_name_with_what_it_needs() {
        let mut index = Descriptors::default();
        index.add(&two_files()).unwrap();
        index.add(&two_files()).unwrap();
        assert_eq!(names(index.defining("p.Outer.Inner")), ["a.proto"]);
        assert_eq!(
            names(index.defining("p.q.Shop.Buy")),
            ["b.proto", "a.proto"]
        );
        assert_eq!(
            names(index.extending("p.Outer", 100)),
            ["b.proto", "a.proto"]
        );
        assert_eq!(index.extending("p.Outer", 101), None);
        assert_eq!(index.extensions_of("p.Outer"), Some(vec![100]));
        assert_eq!(index.extensions_of("p.Outer.Inner"), Some(vec![]));
        assert_eq!(index.extensions_of("p.Nobody"), None);
        assert_eq!(index.services().collect::<Vec<_>>(), ["p.q.Shop"]);
        assert_eq!(index.file("missing.proto"), None);
    }

    #[test]
    fn bytes_that_are_no_descriptors_are_refused() {
        let mut index = Descriptors::default();
        assert!(index.add(b"\x0a\xff\xff").is_err());
        assert!(index.add(b"\x0a\x02\x0a\x7f").is_err());
    }
}
