//! The demo's data: all flights that left New York City in 2013 (`data/README.md`).

use std::fmt::Write;

use ringmill_wire::compression::{Compression, decompress};

use crate::Failure;

/// Column after column, compressed.
const PACKED: &[u8] = include_bytes!("../data/flights.zst");
/// More than it unpacks to.
const UNPACKED_MAX: usize = 64 << 20;
/// The columns, in order.
const COLUMNS: &str =
    "year,month,day,dep_time,dep_delay,arr_time,arr_delay,carrier,flight,origin,dest";
const COUNT: usize = 11;
/// What the data has where nothing is known.
const MISSING: &str = "NA";

/// The table; rows are put together when they are asked for.
pub(crate) struct Flights {
    text: String,
    /// Where each value ends, all of a column before the next.
    ends: Vec<u32>,
    rows: usize,
}

impl Flights {
    /// Unpacks the table.
    pub(crate) fn load() -> Result<Self, Failure> {
        let damaged = |cause: String| Failure(format!("the demo's data is damaged: {cause}"));
        let unpacked = decompress(Compression::Zstd, PACKED, UNPACKED_MAX);
        let unpacked = unpacked.map_err(|error| damaged(error.to_string()))?;
        let text = String::from_utf8(unpacked).map_err(|error| damaged(error.to_string()))?;
        let body = text
            .strip_prefix(COLUMNS)
            .and_then(|text| text.strip_prefix('\n'));
        let body = body
            .ok_or_else(|| damaged("other columns".to_owned()))?
            .to_owned();
        let ends: Vec<u32> = body.match_indices('\n').map(|(at, _)| at as u32).collect();
        if !ends.len().is_multiple_of(COUNT) {
            return Err(damaged(format!("{} values", ends.len())));
        }
        Ok(Self {
            rows: ends.len() / COUNT,
            text: body,
            ends,
        })
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.rows
    }

    fn value(&self, column: usize, row: usize) -> &str {
        let at = column * self.rows + row;
        let start = at
            .checked_sub(1)
            .map_or(0, |before| self.ends[before] as usize + 1);
        &self.text[start..self.ends[at] as usize]
    }

    /// What its record is keyed by: where it goes to.
    pub(crate) fn key(&self, row: usize) -> &str {
        self.value(COUNT - 1, row)
    }

    /// A flight as an object of JSON, in place of what `out` held.
    pub(crate) fn write(&self, row: usize, out: &mut String) {
        let value = |column| self.value(column, row);
        let number = |column| match value(column) {
            MISSING => "null",
            number => number,
        };
        out.clear();
        let written = write!(
            out,
            "{{\"date\":\"{}-{:0>2}-{:0>2}\",\"carrier\":\"{}\",\"flight\":{},\"from\":\"{}\",\"to\":\"{}\",\
             \"departed\":{},\"departure_delay\":{},\"arrived\":{},\"arrival_delay\":{}}}",
            value(0),
            value(1),
            value(2),
            value(7),
            number(8),
            value(9),
            value(10),
            number(3),
            number(4),
            number(5),
            number(6),
        );
        written.expect("a string takes everything");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_flights_of_the_year_are_there_as_objects() {
        let flights = Flights::load().unwrap();
        assert_eq!(flights.len(), 336_776);
        let mut text = String::new();
        flights.write(0, &mut text);
        // the first row of the package's table
        assert_eq!(
            text,
            "{\"date\":\"2013-01-01\",\"carrier\":\"UA\",\"flight\":1545,\"from\":\"EWR\",\"to\":\"IAH\",\
             \"departed\":517,\"departure_delay\":2,\"arrived\":830,\"arrival_delay\":11}"
        );
        for row in (0..flights.len()).step_by(997).chain([flights.len() - 1]) {
            flights.write(row, &mut text);
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(value["to"], flights.key(row), "{text}");
        }
    }
}
