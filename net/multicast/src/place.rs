//! Places in what a sender sends, and numbers that are longer than the wire has room for.

/// A symbol's place in the order of sending. The numbers go on where the wire's wrap around.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The object.
    pub object: u64,
    /// The source block within it.
    pub block: u64,
    /// The symbol within that.
    pub symbol: u16,
}

/// The number nearest to `near` of those that the wire's `bits` stand for; none below 0.
pub(crate) fn unwrap(near: u64, wire: u32, bits: u32) -> Option<u64> {
    let period = 1u64 << bits;
    let ahead = u64::from(wire).wrapping_sub(near) & (period - 1);
    if ahead < period / 2 {
        near.checked_add(ahead)
    } else {
        (near + ahead).checked_sub(period)
    }
}

/// A number that stands for the wire's `wire`, with room for older ones below it.
pub(crate) fn first_contact(wire: u32, bits: u32) -> u64 {
    u64::from(wire) + (1 << bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_on_where_the_wire_wraps_around() {
        assert_eq!(unwrap(65_530, 2, 16), Some(65_538));
        assert_eq!(unwrap(65_538, 65_530, 16), Some(65_530));
        assert_eq!(unwrap(5, 65_530, 16), None);
        assert_eq!(unwrap(5, 7, 16), Some(7));
        assert_eq!(unwrap(1 << 40, 0, 32), Some(1 << 40));
        let contact = first_contact(3, 24);
        assert_eq!(unwrap(contact, 1, 24), Some(contact - 2));
        assert_eq!(unwrap(contact, 0xff_ffff, 24), Some(contact - 4));
    }
}
