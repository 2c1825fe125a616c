//! Every message is what it was after its bytes; hostile bytes are refused, never feared.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

fn bytes_up_to(len: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..len).prop_map(Bytes::from)
}

/// As an application's extension is padded to whole words.
fn app_ack() -> impl Strategy<Value = Option<Bytes>> {
    option::of((0usize..20, any::<u8>()).prop_map(|(w, b)| Bytes::from(vec![b; w * 4 + 2])))
}

fn fec() -> impl Strategy<Value = FecId> {
    prop_oneof![
        Just(FecId::Rs { bits: 16 }),
        Just(FecId::Rs8),
        Just(FecId::SmallBlock)
    ]
}

fn payload_id(fec: FecId) -> impl Strategy<Value = PayloadId> {
    (any::<u32>(), any::<u16>(), any::<u16>()).prop_map(move |(block, symbol, len)| PayloadId {
        block: (u64::from(block) % (1 << fec.block_bits())) as u32,
        symbol: if fec == FecId::Rs8 {
            symbol & 0xff
        } else {
            symbol
        },
        block_len: if fec == FecId::SmallBlock { len } else { 0 },
    })
}

fn watermark() -> impl Strategy<Value = Watermark> {
    fec().prop_flat_map(|fec| {
        (payload_id(fec), any::<u16>()).prop_map(move |(id, object)| Watermark { fec, object, id })
    })
}

fn tag() -> impl Strategy<Value = SenderTag> {
    (any::<u16>(), any::<u8>(), 0u8..16, any::<u8>()).prop_map(|(instance, grtt, backoff, size)| {
        SenderTag {
            instance,
            grtt: Rtt(grtt),
            backoff,
            group_size: GroupSize::from_bits(size),
        }
    })
}

fn fti(fec: FecId) -> impl Strategy<Value = Fti> {
    let narrow = fec == FecId::Rs8;
    let instance = fec == FecId::SmallBlock;
    (0..=OBJECT_SIZE_MAX, any::<[u16; 4]>()).prop_map(move |(object_size, [a, b, c, d])| Fti {
        object_size,
        segment_size: a,
        block_len: if narrow { b & 0xff } else { b },
        parity: if narrow { c & 0xff } else { c },
        instance: if instance { d } else { 0 },
    })
}

fn object() -> impl Strategy<Value = (ObjectHeader, PayloadId)> {
    fec().prop_flat_map(|fec| {
        let parts = (
            tag(),
            any::<u8>(),
            any::<u16>(),
            option::of(fti(fec)),
            payload_id(fec),
        );
        parts.prop_map(move |(tag, flags, object, fti, id)| {
            let header = ObjectHeader {
                tag,
                flags,
                fec,
                object,
                fti,
            };
            (header, id)
        })
    })
}

fn cc_feedback() -> impl Strategy<Value = Option<CcFeedback>> {
    let feedback =
        any::<(u16, u8, u8, u32, u16)>().prop_map(|(sequence, flags, rtt, loss, rate)| {
            CcFeedback {
                sequence,
                flags,
                rtt: Rtt(rtt),
                loss: Loss(loss),
                rate: Rate(rate),
            }
        });
    option::of(feedback)
}

fn time() -> impl Strategy<Value = SendTime> {
    any::<(u32, u32)>().prop_map(|(seconds, micros)| SendTime { seconds, micros })
}

fn requests() -> impl Strategy<Value = Vec<RepairRequest>> {
    let form = prop_oneof![Just(Form::Items), Just(Form::Ranges), Just(Form::Erasures)];
    let item = watermark().prop_map(|at| RepairItem {
        fec: at.fec,
        object: at.object,
        id: at.id,
    });
    let request = (form, any::<u8>(), vec(item, 0..8)).prop_map(|(form, flags, mut items)| {
        if form == Form::Ranges && items.len() % 2 == 1 {
            items.pop();
        }
        RepairRequest { form, flags, items }
    });
    vec(request, 0..5)
}

fn command() -> impl Strategy<Value = Command> {
    let nodes = || vec(any::<u32>(), 0..20);
    let cc_nodes = vec(any::<(u32, u8, u8, u16)>(), 0..10).prop_map(|nodes| {
        let node = |(node, flags, rtt, rate)| CcNode {
            node,
            flags,
            rtt: Rtt(rtt),
            rate: Rate(rate),
        };
        nodes.into_iter().map(node).collect::<Vec<_>>()
    });
    let rate = option::of(any::<u16>().prop_map(Rate));
    prop_oneof![
        (watermark(), nodes(), app_ack()).prop_map(|(at, acking, app_ack)| Command::Flush {
            at,
            acking,
            app_ack
        }),
        Just(Command::EndOfTransmission),
        (watermark(), vec(any::<u16>(), 0..20))
            .prop_map(|(from, gone)| Command::Squelch(Squelch { from, gone })),
        (any::<(u16, u8)>(), time(), rate, cc_nodes).prop_map(
            |((sequence, flags), sent, rate, nodes)| Command::Cc {
                sequence,
                flags,
                sent,
                rate,
                nodes
            }
        ),
        (any::<bool>(), cc_feedback(), requests()).prop_map(|(limited, cc_feedback, requests)| {
            Command::RepairAdv {
                limited,
                cc_feedback,
                requests,
            }
        }),
        (any::<(u8, u8)>(), nodes()).prop_map(|((ack_type, ack_id), nodes)| Command::AckRequest {
            ack_type,
            ack_id,
            nodes
        }),
        bytes_up_to(100).prop_map(Command::Application),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    let nack = (any::<(u32, u16)>(), time(), cc_feedback(), requests());
    let kind = prop_oneof![
        Just(AckKind::Cc),
        watermark().prop_map(AckKind::Flush),
        (16u8.., bytes_up_to(40)).prop_map(|(kind, content)| AckKind::Application(kind, content)),
    ];
    let ack = (
        any::<(u32, u16, u8)>(),
        time(),
        cc_feedback(),
        app_ack(),
        kind,
    );
    prop_oneof![
        (object(), bytes_up_to(100))
            .prop_map(|((header, _), content)| Message::Info(Info { header, content })),
        (object(), bytes_up_to(100)).prop_map(|((header, id), payload)| Message::Data(Data {
            header,
            id,
            payload
        })),
        (tag(), command()).prop_map(|(tag, command)| Message::Command(tag, command)),
        nack.prop_map(
            |((sender, instance), grtt_response, cc_feedback, requests)| {
                Message::Nack(Nack {
                    sender,
                    instance,
                    grtt_response,
                    cc_feedback,
                    requests,
                })
            }
        ),
        ack.prop_map(
            |((sender, instance, ack_id), grtt_response, cc_feedback, app_ack, kind)| {
                Message::Ack(Ack {
                    sender,
                    instance,
                    ack_id,
                    grtt_response,
                    cc_feedback,
                    app_ack,
                    kind,
                })
            }
        ),
        bytes_up_to(40).prop_map(Message::Report),
    ]
}

pub(crate) fn packet() -> impl Strategy<Value = Packet> {
    (any::<(u16, u32)>(), message()).prop_map(|((sequence, source), message)| Packet {
        sequence,
        source,
        message,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_message_is_what_its_bytes_say(packet in packet()) {
        let encoded = packet.encode();
        let bytes = encoded.to_bytes();
        prop_assert_eq!(bytes.len(), encoded.len());
        prop_assert_eq!(Packet::decode(bytes), Ok(packet));
    }

    #[test]
    fn a_damaged_message_is_refused_or_read_never_feared(
        packet in packet(),
        cut in any::<prop::sample::Index>(),
        places in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let mut bytes = packet.encode().to_bytes().to_vec();
        for (place, value) in places {
            let at = place.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        let len = bytes.len();
        if let Ok(read) = Packet::decode(bytes.into()) {
            // What is understood can be said again, and is no longer than it was, but for the
            // extensions' padding.
            prop_assert!(read.encode().len() <= len + 4);
        }
    }

    #[test]
    fn arbitrary_bytes_are_no_danger(mut bytes in vec(any::<u8>(), 0..200), kind in 0x11u8..0x17) {
        let _ = Packet::decode(bytes.clone().into());
        if let Some(first) = bytes.first_mut() {
            *first = kind;
        }
        let _ = Packet::decode(bytes.into());
    }
}

#[test]
fn a_data_message_has_the_bytes_of_the_rfc() {
    let packet = Packet {
        sequence: 0x0102,
        source: 0x0a0b_0c0d,
        message: Message::Data(Data {
            header: ObjectHeader {
                tag: SenderTag {
                    instance: 0x1122,
                    grtt: Rtt(0x33),
                    backoff: 4,
                    group_size: GroupSize::from_bits(2),
                },
                flags: object_flags::STREAM,
                fec: FecId::Rs8,
                object: 7,
                fti: Some(Fti {
                    object_size: 0x01_0000_0002,
                    segment_size: 1400,
                    block_len: 64,
                    parity: 8,
                    instance: 0,
                }),
            },
            id: PayloadId {
                block: 0x010203,
                symbol: 4,
                block_len: 0,
            },
            payload: Bytes::from_static(b"xy"),
        }),
    };
    let expected = [
        0x12, 8, 1, 2, 0x0a, 0x0b, 0x0c, 0x0d, // version and type, words, sequence, source
        0x11, 0x22, 0x33, 0x42, 0x20, 5, 0,
        7, // instance, GRTT, K and size, flags, FEC, object
        1, 2, 3, 4, // block and symbol
        64, 3, 0, 1, 0, 0, 0, 2, 0x05, 0x78, 64, 8, // EXT_FTI
        b'x', b'y',
    ];
    assert_eq!(&packet.encode().to_bytes()[..], &expected);
}

#[test]
fn field_bits_of_general_reed_solomon_come_from_the_extension() {
    let header = ObjectHeader {
        tag: SenderTag::default(),
        flags: 0,
        fec: FecId::Rs { bits: 8 },
        object: 0,
        fti: Some(Fti {
            object_size: 1,
            segment_size: 1,
            block_len: 1,
            parity: 1,
            instance: 0,
        }),
    };
    let id = PayloadId {
        block: 0x112233,
        symbol: 0x44,
        block_len: 0,
    };
    let packet = Packet {
        sequence: 0,
        source: 1,
        message: Message::Data(Data {
            header,
            id,
            payload: Bytes::new(),
        }),
    };
    assert_eq!(Packet::decode(packet.encode().to_bytes()), Ok(packet));
}

#[test]
fn broken_messages_are_told_apart() {
    let decode = |bytes: &'static [u8]| Packet::decode(Bytes::from_static(bytes));
    assert_eq!(decode(&[0x12, 2]), Err(WireError::Short));
    assert_eq!(
        decode(&[0x22, 2, 0, 0, 0, 0, 0, 0]),
        Err(WireError::Version)
    );
    assert_eq!(
        decode(&[0x12, 1, 0, 0, 0, 0, 0, 0]),
        Err(WireError::HeaderLength)
    );
    assert_eq!(
        decode(&[0x12, 2, 0, 0, 0, 0, 0, 0]),
        Err(WireError::HeaderLength)
    );
    assert_eq!(decode(&[0x12, 3, 0, 0, 0, 0, 0, 0]), Err(WireError::Short));
    assert_eq!(
        decode(&[0x17, 2, 0, 0, 0, 0, 0, 0]),
        Err(WireError::UnknownType(7))
    );
    let endless_extension = [
        0x11, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 64, 0, 0, 0,
    ];
    let refused = Packet::decode(Bytes::from(endless_extension.to_vec()));
    assert_eq!(refused, Err(WireError::Extension));
}
