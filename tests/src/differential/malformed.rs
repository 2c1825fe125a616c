//! Frames that are no requests: what becomes of the connection.

use bytes::{BufMut, Bytes, BytesMut};
use ringmill_wire::kafka_protocol::messages::ApiKey;

use super::side::{Ask, Body};
use super::world::{Step, World};
use super::{admin, configs, consumer_groups, fetch, groups, offsets, produce, topics};

/// One of them.
pub fn draw(world: &mut World) -> Vec<Step> {
    // a connection of its own each, so that its end ends nothing else
    let step = match world.below(10) {
        0..3 => Step::fixed(Ask {
            key: ApiKey::ApiVersions,
            version: 0,
            body: Body::Frame(frame(world)),
        }),
        3..5 => Step::fixed(out_of_range(world)),
        _ => cut(world),
    };
    vec![step.on(9)]
}

fn request(key: i16, version: i16, rest: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_i32(0);
    frame.put_i16(key);
    frame.put_i16(version);
    frame.put_i32(77);
    frame.extend_from_slice(rest);
    let length = (frame.len() - 4) as i32;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame.freeze()
}

fn frame(world: &mut World) -> Bytes {
    let client = b"\0\x01c";
    match world.below(12) {
        0 => Bytes::from_static(&[0xff, 0xff, 0xff, 0xff]),
        1 => Bytes::from_static(&[0, 0, 0, 0]),
        2 => Bytes::from_static(&[0x7f, 0xff, 0xff, 0xff, 0, 3]),
        3 => Bytes::from_static(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"),
        4 => Bytes::from_static(&[0, 0, 0, 2, 0, 3]),
        5 => Bytes::from_static(&[0, 0, 0, 8, 0, 3, 0, 0, 0, 0, 0, 1]),
        6 => request(999, 0, client),
        7 => request(-1, 0, client),
        8 => request(3, 0, b"\xff\xff"),
        9 => request(3, 0, b"\x7f\xffc"),
        // a count of topics beyond what follows
        10 => request(3, 1, b"\0\x01c\x7f\xff\xff\xff"),
        _ => request(18, 3, b"\0\x01c\0\x7f"),
    }
}

/// A version that nobody has.
fn out_of_range(world: &mut World) -> Ask {
    let keys = [0, 1, 2, 3, 8, 9, 10, 11, 18, 18, 19, 22, 32, 68];
    let (key, version) = (world.pick(&keys), world.pick(&[-1, 99, i16::MAX]));
    let frame = request(key, version, b"\0\x01c\0\0\0\0\0\0\0\0");
    Ask {
        key: ApiKey::try_from(key).expect("keys of the list are known"),
        version,
        body: Body::Frame(frame),
    }
}

/// A request of the others', cut short or made longer.
fn cut(world: &mut World) -> Step {
    let steps = match world.below(8) {
        0 => topics::draw(world),
        1 => produce::draw(world),
        2 => fetch::draw(world),
        3 => offsets::draw(world),
        4 => groups::draw(world),
        5 => consumer_groups::draw(world),
        6 => configs::draw(world),
        _ => admin::draw(world),
    };
    let cut = world.pick(&[1, 1, 2, 4, 9]);
    let step = steps.into_iter().next().expect("each draws a request");
    let inner = step.ask;
    Step::of(move |memory| {
        let ask = inner(memory);
        let body = match ask.body {
            Body::Message(message) => Body::Cut(message, cut),
            other => other,
        };
        Ask { body, ..ask }
    })
}
