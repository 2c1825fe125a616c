//! NORM's short forms of times, sizes, rates and fractions (RFC 5740 §4.2, §5.5; RFC 5401 §4).
//!
//! All of them round so that a protocol that trusts them errs on the careful side: times and
//! group sizes up.

use std::time::Duration;

/// The bounds of a round trip time on the wire, in seconds.
const RTT_MIN: f64 = 1.0e-6;
const RTT_MAX: f64 = 1000.0;

/// Below this, an RTT is written in whole microseconds; above, by its logarithm.
const RTT_LINEAR_MAX: f64 = 3.3e-5;

/// A round trip time in one byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rtt(pub u8);

impl Rtt {
    /// The shortest one that is not less than `rtt`, within the form's bounds.
    pub fn quantize(rtt: Duration) -> Rtt {
        let seconds = rtt.as_secs_f64().clamp(RTT_MIN, RTT_MAX);
        if seconds < RTT_LINEAR_MAX {
            return Rtt((seconds / RTT_MIN).ceil() as u8 - 1);
        }
        Rtt((255.0 - 13.0 * (RTT_MAX / seconds).ln()).ceil() as u8)
    }

    /// What it stands for.
    pub fn duration(self) -> Duration {
        let seconds = match self.0 {
            q @ 0..31 => f64::from(q + 1) * RTT_MIN,
            q => RTT_MAX / (f64::from(255 - q) / 13.0).exp(),
        };
        Duration::from_secs_f64(seconds)
    }
}

/// The size of a group in four bits: 10 to 10^8, or five times that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupSize(u8);

impl GroupSize {
    /// From the four bits of the wire; higher ones are ignored.
    pub fn from_bits(bits: u8) -> GroupSize {
        GroupSize(bits & 0x0f)
    }

    /// The four bits.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// The smallest one that is not less than `members`.
    pub fn quantize(members: u32) -> GroupSize {
        let all = (0..8).flat_map(|exponent| [exponent, exponent | 8]);
        all.map(GroupSize)
            .find(|size| size.members() >= f64::from(members))
            .unwrap_or(GroupSize(0x0f))
    }

    /// What it stands for.
    pub fn members(self) -> f64 {
        let mantissa = if self.0 & 8 == 0 { 1.0 } else { 5.0 };
        mantissa * 10f64.powi(i32::from(self.0 & 7) + 1)
    }
}

/// A rate in bytes per second, as a mantissa of 12 bits and a decimal exponent of 4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate(pub u16);

impl Rate {
    /// The nearest one to `rate` bytes per second.
    pub fn quantize(rate: f64) -> Rate {
        if rate.is_nan() || rate < 1.0 {
            return Rate(1 << 4);
        }
        let mut exponent = rate.log10().floor().min(15.0) as u16;
        let mantissa = |exponent: u16| {
            ((4096.0 / 10.0) * (rate / 10f64.powi(i32::from(exponent))) + 0.5) as u32
        };
        // 9.9999 rounds up to a mantissa of 13 bits: that is 1.0 of the next power.
        if mantissa(exponent) > 0x0fff && exponent < 15 {
            exponent += 1;
        }
        Rate((mantissa(exponent).min(0x0fff) as u16) << 4 | exponent)
    }

    /// What it stands for, in bytes per second.
    pub fn bytes_per_second(self) -> f64 {
        f64::from(self.0 >> 4) * (10.0 / 4096.0) * 10f64.powi(i32::from(self.0 & 0x0f))
    }
}

/// A fraction of packets that are lost, as 32 bits (the low half rides in a reserved field of
/// EXT_CC, as libnorm has it; RFC 5740 knows the high half alone).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss(pub u32);

impl Loss {
    /// The nearest one to a fraction from 0 to 1.
    pub fn quantize(fraction: f64) -> Loss {
        Loss((fraction.clamp(0.0, 1.0) * f64::from(u32::MAX) + 0.5) as u32)
    }

    /// What it stands for, from 0 to 1.
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / f64::from(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_times_round_up_and_by_little() {
        for micros in [0, 1, 2, 17, 31, 32, 33, 34, 100, 1_000, 250_000, 15_000_000] {
            let rtt = Duration::from_micros(micros);
            let back = Rtt::quantize(rtt).duration();
            let least = rtt.max(Duration::from_micros(1));
            assert!(
                back + Duration::from_nanos(1) >= least,
                "{micros}: {back:?}"
            );
            assert!(back <= least.mul_f64(1.1), "{micros}: {back:?}");
        }
        assert_eq!(Rtt::quantize(Duration::MAX), Rtt(255));
        // Values of libnorm's table, but for its rounding to four digits.
        assert_eq!(Rtt(100).duration().as_micros(), 6_635);
        assert_eq!(Rtt(255).duration().as_secs(), 1000);
        for q in 0..=255 {
            let up = Rtt::quantize(Rtt(q).duration()).0;
            assert!(up.abs_diff(q) <= 1, "{q} became {up}");
        }
    }

    #[test]
    fn group_sizes_round_up() {
        let sizes = [(0, 10.0), (10, 10.0), (11, 50.0), (51, 100.0), (101, 500.0)];
        for (members, stands_for) in sizes {
            assert_eq!(GroupSize::quantize(members).members(), stands_for);
        }
        assert_eq!(GroupSize::quantize(u32::MAX).members(), 500_000_000.0);
    }

    #[test]
    fn rates_and_losses_stay_close() {
        for rate in [
            1.0, 9.9999, 12.0, 8_000.0, 99_999.9, 1.25e6, 1.25e9, 9.99e14,
        ] {
            let back = Rate::quantize(rate).bytes_per_second();
            assert!((back / rate - 1.0).abs() < 0.004, "{rate}: {back}");
        }
        assert!(Rate::quantize(f64::NAN).bytes_per_second() < 0.01);
        for loss in [0.0, 1.0e-7, 0.2, 1.0] {
            assert!((Loss::quantize(loss).fraction() - loss).abs() < 1.0e-9);
        }
    }
}
