//! Tests of the primitive types: their edges, and what they refuse.

use bytes::BufMut;
use proptest::prelude::*;

use super::*;

#[test]
fn varints_have_their_shortest_length_at_every_edge() {
    for bits in 0..64 {
        for value in [1_u64 << bits, (1 << bits) - 1, u64::MAX >> bits] {
            let mut out = BytesMut::new();
            put_uvarint(&mut out, value);
            assert_eq!(out.len(), uvarint_len(value), "{value}");
            assert_eq!(Reader::new(&out).uvarint64(MAX_VARLONG_LEN), Ok(value));
        }
    }
}

#[test]
fn varints_that_run_over_their_width_are_refused() {
    let read = |bytes: &[u8]| Reader::new(bytes).uvarint();
    assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Ok(u32::MAX));
    assert_eq!(
        read(&[0xff, 0xff, 0xff, 0xff, 0x1f]),
        Err(ReadError::Varint { at: 0 })
    );
    assert_eq!(
        read(&[0x80, 0x80, 0x80, 0x80, 0x80, 0]),
        Err(ReadError::Varint { at: 0 })
    );
    assert_eq!(read(&[0x80]), Err(ReadError::Short { at: 0, missing: 1 }));
    let read = |bytes: &[u8]| Reader::new(bytes).varlong();
    let mut longest = [0xff; 10];
    longest[9] = 1;
    assert_eq!(read(&longest), Ok(i64::MIN));
    longest[9] = 2;
    assert_eq!(read(&longest), Err(ReadError::Varint { at: 0 }));
}

#[test]
fn tagged_fields_must_ascend_and_fill_their_size() {
    let read = |bytes: &[u8], known: bool| {
        let mut seen = Vec::new();
        let mut reader = Reader::new(bytes);
        let done = reader.tagged_fields(true, |tag, content| {
            seen.push(tag);
            if known {
                content.i8()?;
            }
            Ok(known)
        });
        done.map(|()| (seen, reader.remaining()))
    };
    assert_eq!(
        read(&[2, 0, 1, b'a', 5, 1, b'b', b'!'], true),
        Ok((vec![0, 5], 1))
    );
    assert_eq!(
        read(&[2, 0, 1, b'a', 5, 3, b'b', b'c', b'd'], false),
        Ok((vec![0, 5], 0))
    );
    let twice = Err(ReadError::TagOrder { at: 4, tag: 3 });
    assert_eq!(read(&[2, 3, 1, b'a', 3, 1, b'b'], false), twice);
    assert_eq!(
        read(&[1, 3, 2, b'a', b'b'], true),
        Err(ReadError::TagSize { at: 3, tag: 3 })
    );
    assert_eq!(
        read(&[1, 3, 0], true),
        Err(ReadError::Short { at: 3, missing: 1 })
    );
    // a known field may not read into what follows its stated size
    assert!(read(&[2, 3, 0, 4, 1, b'x'], true).is_err());
    let many = ReadError::Count {
        at: 0,
        count: u32::MAX.into(),
        left: 4,
    };
    assert_eq!(
        read(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0, 0], false),
        Err(many)
    );
}

#[test]
fn elements_are_counted_over_all_arrays_of_a_message() {
    let mut bytes = BytesMut::new();
    let most = MAX_REQUEST_ELEMENTS;
    bytes.put_i32(most as i32);
    bytes.put_bytes(0, most);
    let mut reader = Reader::new(&bytes);
    assert_eq!(reader.count(false, 1), Ok(most));
    assert_eq!(Reader::of_response(&bytes).count(false, 1), Ok(most));
    // the zeros that follow read as an array of none, then as one with an element too many
    assert_eq!(reader.count(false, 1), Ok(0));
    bytes[10] = 1;
    let mut reader = Reader::new(&bytes);
    reader.count(false, 1).unwrap();
    reader.take(3).unwrap();
    assert_eq!(
        reader.count(false, 1),
        Err(ReadError::Elements { at: 7, max: most })
    );
}

#[test]
fn null_is_told_from_empty() {
    let string = |bytes: &'static [u8], flexible| Reader::new(bytes).nullable_string(flexible);
    assert_eq!(string(&[0xff, 0xff], false), Ok(None));
    assert_eq!(string(&[0, 0], false), Ok(Some(&b""[..])));
    assert_eq!(
        string(&[0xff, 0xfe], false),
        Err(ReadError::Length { at: 0, length: -2 })
    );
    assert_eq!(string(&[0], true), Ok(None));
    assert_eq!(string(&[1], true), Ok(Some(&b""[..])));
    assert_eq!(
        Reader::new(&[0]).count(true, 1),
        Err(ReadError::Length { at: 0, length: -1 })
    );
}

proptest! {
    #[test]
    fn strings_and_counts_come_back(
        text in proptest::option::of(".{0,300}"),
        flexible: bool,
        count in 0_usize..1000,
    ) {
        let mut out = BytesMut::new();
        put_nullable_string(&mut out, flexible, text.as_deref());
        put_count(&mut out, flexible, count);
        put_nullable_count(&mut out, flexible, None);
        out.put_bytes(0, count);
        let whole = out.freeze();
        let mut reader = Reader::new(&whole);
        let read = reader.nullable_str(flexible, &whole).unwrap();
        prop_assert_eq!(read.as_deref(), text.as_deref());
        prop_assert_eq!(reader.count(flexible, 1), Ok(count));
        prop_assert_eq!(reader.nullable_count(flexible, 1), Ok(None));
    }

    #[test]
    fn zigzag_is_its_own_way_back(value: i64) {
        prop_assert_eq!(unzigzag64(zigzag64(value)), value);
        prop_assert_eq!(unzigzag(zigzag(value as i32)), value as i32);
        prop_assert_eq!(varint_len(value), uvarint_len(zigzag64(value)));
    }
}

#[test]
fn a_string_has_no_more_bytes_in_one_encoding_than_in_the_other() {
    for (length, taken) in [(MAX_STRING_LEN, true), (MAX_STRING_LEN + 1, false)] {
        let mut bytes = BytesMut::new();
        put_string(&mut bytes, true, &"x".repeat(length));
        let read = Reader::new(&bytes).nullable_string(true);
        let too_long = ReadError::Length {
            at: 0,
            length: length as i64,
        };
        match taken {
            true => assert_eq!(read.map(|s| s.map(<[u8]>::len)), Ok(Some(length))),
            false => assert_eq!(read, Err(too_long)),
        }
    }
}
