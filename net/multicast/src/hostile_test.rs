//! Messages that no honest node sends: neither sender nor receiver may fear them, and both go on
//! with their work.

use std::time::Duration;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use ringmill_ring::Instant;

use crate::wire::wire_test;
use crate::wire::{Command, Message, Packet};
use crate::{Receiver, ReceiverConfig, Sender, SenderConfig};

/// Makes a message one that its receiver has to take seriously.
fn aim(mut packet: Packet, small: bool) -> Packet {
    packet.source = 1;
    let low = |number: &mut u32| *number &= if small { 7 } else { u32::MAX };
    match &mut packet.message {
        Message::Info(info) => info.header.tag.instance = 1,
        Message::Data(data) => {
            data.header.tag.instance = 1;
            if small {
                data.header.object &= 7;
                data.id.symbol &= 7;
                if let Some(fti) = &mut data.header.fti {
                    fti.block_len = fti.block_len % 8 + 1;
                    fti.parity %= 4;
                    fti.segment_size = 100;
                    fti.object_size %= 3_000;
                    fti.instance = 0;
                }
            }
            low(&mut data.id.block);
        }
        Message::Command(tag, command) => {
            tag.instance = 1;
            let at = match command {
                Command::Flush { at, .. } => at,
                Command::Squelch(squelch) => &mut squelch.from,
                _ => return packet,
            };
            if small {
                at.object &= 7;
                at.id.symbol &= 15;
            }
            low(&mut at.id.block);
        }
        Message::Nack(nack) => {
            (nack.sender, nack.instance) = (1, 1);
            packet.source = 2;
            let items = nack
                .requests
                .iter_mut()
                .flat_map(|request| &mut request.items);
            for item in items.filter(|_| small) {
                item.object &= 3;
                item.id.block &= 7;
                item.id.symbol &= 15;
            }
        }
        Message::Ack(ack) => {
            (ack.sender, ack.instance) = (1, 1);
            packet.source = 2;
        }
        Message::Report(_) => {}
    }
    packet
}

fn address() -> std::net::SocketAddr {
    ([10, 0, 0, 9], 6003).into()
}

fn sender() -> (Sender, u64) {
    let config = SenderConfig {
        segment_size: 100,
        block_len: 4,
        parity: 2,
        buffer_blocks: 4,
        ..SenderConfig::new(1, 1)
    };
    let mut sender = Sender::new(Instant::default(), config).unwrap();
    let stream = sender.open_stream(Instant::default(), None).unwrap();
    sender.add_receiver(2);
    (sender, stream)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_sender_fears_nothing(
        packets in vec((wire_test::packet(), any::<bool>(), 0u64..50), 1..60),
    ) {
        let (mut sender, stream) = sender();
        let mut now = Instant::default();
        for (packet, small, wait) in packets {
            now += Duration::from_millis(wait);
            let _ = sender.write(now, stream, &[7; 90], true);
            let _ = sender.send_object(now, Bytes::from_static(b"object"), None);
            sender.on_packet(now, address(), &aim(packet, small));
            for _ in 0..200 {
                let Some(transmit) = sender.poll_transmit(now) else { break };
                prop_assert!(Packet::decode(transmit.datagram.to_bytes()).is_ok());
                prop_assert!(transmit.datagram.len() <= 100 + 60);
            }
            prop_assert!(sender.next_deadline().is_some());
            while sender.poll_event().is_some() {}
        }
    }

    #[test]
    fn a_receiver_fears_nothing(
        packets in vec((wire_test::packet(), any::<bool>(), 0u64..50), 1..120),
    ) {
        let mut receiver = Receiver::new(ReceiverConfig::new(2, 7));
        let mut now = Instant::default();
        for (packet, small, wait) in packets {
            now += Duration::from_millis(wait);
            receiver.on_packet(now, address(), aim(packet, small), 100);
            while let Some(transmit) = receiver.poll_transmit(now) {
                prop_assert!(Packet::decode(transmit.datagram.to_bytes()).is_ok());
                prop_assert!(transmit.datagram.len() <= 1_500);
            }
            while receiver.read().is_some() {}
            while receiver.poll_event().is_some() {}
            let _ = receiver.next_deadline();
        }
    }
}
