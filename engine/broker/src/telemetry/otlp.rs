//! What clients push: OpenTelemetry's MetricsData, of which gauges and sums are taken, the only kinds
//! that Kafka's clients send, and the latest value of each metric that they add up to.
//! <https://github.com/open-telemetry/opentelemetry-proto/blob/main/opentelemetry/proto/metrics/v1/metrics.proto>

use std::collections::BTreeMap;

use prost::{DecodeError, Message};

/// Metrics of one client instance, at most: those that come later are left out.
pub const METRICS_MAX: usize = 1000;
/// Bytes of a metric's name with its labels. A longer one is left out: cut, it might be another's.
pub const NAME_BYTES_MAX: usize = 512;
/// Points of one push that are looked at, at most.
const POINTS_MAX: usize = 10 * METRICS_MAX;
/// `AGGREGATION_TEMPORALITY_DELTA`: the value counts from the push before.
const DELTA: i32 = 1;

#[derive(Clone, PartialEq, Message)]
struct MetricsData {
    #[prost(message, repeated, tag = "1")]
    resource_metrics: Vec<ResourceMetrics>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceMetrics {
    #[prost(message, repeated, tag = "2")]
    scope_metrics: Vec<ScopeMetrics>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeMetrics {
    #[prost(message, repeated, tag = "2")]
    metrics: Vec<Metric>,
}

#[derive(Clone, PartialEq, Message)]
struct Metric {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "5")]
    gauge: Option<Gauge>,
    #[prost(message, optional, tag = "7")]
    sum: Option<Sum>,
}

#[derive(Clone, PartialEq, Message)]
struct Gauge {
    #[prost(message, repeated, tag = "1")]
    data_points: Vec<NumberDataPoint>,
}

#[derive(Clone, PartialEq, Message)]
struct Sum {
    #[prost(message, repeated, tag = "1")]
    data_points: Vec<NumberDataPoint>,
    #[prost(int32, tag = "2")]
    aggregation_temporality: i32,
}

#[derive(Clone, PartialEq, Message)]
struct NumberDataPoint {
    #[prost(double, optional, tag = "4")]
    as_double: Option<f64>,
    #[prost(sfixed64, optional, tag = "6")]
    as_int: Option<i64>,
    #[prost(message, repeated, tag = "7")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(string, optional, tag = "1")]
    string_value: Option<String>,
    #[prost(int64, optional, tag = "3")]
    int_value: Option<i64>,
}

impl NumberDataPoint {
    fn value(&self) -> Option<f64> {
        self.as_double.or(self.as_int.map(|int| int as f64))
    }

    /// The metric's name with this point's labels: `name{key=value,…}`; none if it is too long, which
    /// is found out before anything is copied.
    fn name(&self, metric: &str) -> Option<String> {
        let labels = self.attributes.iter().map(KeyValue::len_max);
        let len = metric.len() + labels.sum::<usize>();
        if len > NAME_BYTES_MAX {
            return None;
        }
        let mut labels: Vec<String> = self.attributes.iter().map(KeyValue::text).collect();
        labels.sort_unstable();
        Some(match labels.is_empty() {
            true => metric.to_owned(),
            false => format!("{metric}{{{}}}", labels.join(",")),
        })
    }
}

impl KeyValue {
    fn text(&self) -> String {
        let value = self.value.as_ref();
        let text = value.and_then(|value| value.string_value.clone());
        let number = value.and_then(|value| value.int_value);
        let value = text.or(number.map(|number| number.to_string()));
        format!("{}={}", self.key, value.unwrap_or_default())
    }

    /// Bytes of the text and of what stands between it and the next, and a little more.
    fn len_max(&self) -> usize {
        /// Digits and sign of the longest number.
        const NUMBER_LEN_MAX: usize = 20;
        let value = self.value.as_ref();
        let text = value.and_then(|value| value.string_value.as_ref());
        let value = text.map_or(NUMBER_LEN_MAX, String::len);
        self.key.len() + value + "{=,}".len()
    }
}

/// The latest value of each metric of one client instance, by name and labels.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Latest(BTreeMap<String, f64>);

impl Latest {
    /// Takes in what was pushed. Sums that come as differences are added up, since the instance
    /// became known; everything else is as it was said last. At most `room` metrics are new.
    /// Returns how many points were taken, and how many left out for lack of room.
    ///
    /// # Errors
    /// If the bytes are no MetricsData; then nothing is taken.
    pub fn take(&mut self, pushed: &[u8], room: usize) -> Result<(usize, usize), DecodeError> {
        let data = MetricsData::decode(pushed)?;
        let scopes = data.resource_metrics.iter();
        let scopes = scopes.flat_map(|resource| &resource.scope_metrics);
        let room = room.min(METRICS_MAX.saturating_sub(self.0.len()));
        let most = self.0.len() + room;
        let (mut taken, mut left_out) = (0, 0);
        for metric in scopes.flat_map(|scope| &scope.metrics) {
            let sum = metric.sum.as_ref();
            let is_delta = sum.is_some_and(|sum| sum.aggregation_temporality == DELTA);
            let gauge = metric.gauge.iter().flat_map(|gauge| &gauge.data_points);
            let points = gauge.chain(sum.iter().flat_map(|sum| &sum.data_points));
            for (point, value) in points.filter_map(|point| Some((point, point.value()?))) {
                let is_over = taken + left_out >= POINTS_MAX;
                let name = point.name(&metric.name).filter(|_| !is_over);
                let fits = |name: &String| self.0.len() < most || self.0.contains_key(name);
                let Some(name) = name.filter(fits) else {
                    left_out += 1;
                    continue;
                };
                let latest = self.0.entry(name).or_default();
                *latest = value + if is_delta { *latest } else { 0.0 };
                taken += 1;
            }
        }
        Ok((taken, left_out))
    }

    /// How many metrics there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().map(|(name, value)| (name.as_str(), *value))
    }
}

#[cfg(test)]
pub(crate) fn pushed_of_tests(gauges: &[(&str, f64)], deltas: &[(&str, i64)]) -> Vec<u8> {
    let label = KeyValue {
        key: "topic".to_owned(),
        value: Some(AnyValue {
            string_value: Some("t".to_owned()),
            int_value: None,
        }),
    };
    let gauges = gauges.iter().map(|(name, value)| Metric {
        name: (*name).to_owned(),
        gauge: Some(Gauge {
            data_points: vec![NumberDataPoint {
                as_double: Some(*value),
                ..NumberDataPoint::default()
            }],
        }),
        sum: None,
    });
    let sums = deltas.iter().map(|(name, value)| Metric {
        name: (*name).to_owned(),
        gauge: None,
        sum: Some(Sum {
            data_points: vec![NumberDataPoint {
                as_int: Some(*value),
                attributes: vec![label.clone()],
                ..NumberDataPoint::default()
            }],
            aggregation_temporality: DELTA,
        }),
    });
    let metrics = gauges.chain(sums).collect();
    let scope_metrics = vec![ScopeMetrics { metrics }];
    let data = MetricsData {
        resource_metrics: vec![ResourceMetrics { scope_metrics }],
    };
    data.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(latest: &Latest) -> String {
        let all = latest.iter().map(|(name, value)| format!("{name}={value}"));
        all.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn gauges_are_as_said_last_and_differences_add_up() {
        let mut latest = Latest::default();
        let first = pushed_of_tests(&[("a", 1.5)], &[("n", 2)]);
        assert_eq!(latest.take(&first, 100).unwrap(), (2, 0));
        let second = pushed_of_tests(&[("a", 0.5), ("b", 7.0)], &[("n", 3)]);
        assert_eq!(latest.take(&second, 100).unwrap(), (3, 0));
        assert_eq!(shown(&latest), "a=0.5 b=7 n{topic=t}=5");
    }

    #[test]
    fn a_cumulative_sum_is_as_said_last() {
        // field 1 (1 (2 (name "n", sum (a point with as_int 4, AGGREGATION_TEMPORALITY_CUMULATIVE))))
        let point = [&[0x31][..], &4_i64.to_le_bytes()].concat();
        let sum = [&[0x0a, 9][..], &point, &[0x10, 2]].concat();
        let metric = [&[0x0a, 1, b'n', 0x3a, 13][..], &sum].concat();
        let scope = [&[0x12, 18][..], &metric].concat();
        let resource = [&[0x12, 20][..], &scope].concat();
        let data = [&[0x0a, 22][..], &resource].concat();
        let mut latest = Latest::default();
        for _ in 0..2 {
            assert_eq!(latest.take(&data, 100).unwrap(), (1, 0));
        }
        assert_eq!(shown(&latest), "n=4");
    }

    #[test]
    fn metrics_and_their_names_are_bounded() {
        let mut latest = Latest::default();
        let (long, longer) = ("a".repeat(NAME_BYTES_MAX), "a".repeat(NAME_BYTES_MAX + 1));
        let pushed = pushed_of_tests(&[(&long, 1.0), (&longer, 1.0)], &[(&long, 1)]);
        assert_eq!(latest.take(&pushed, 100).unwrap(), (1, 2));
        let names: Vec<String> = (0..METRICS_MAX).map(|n| n.to_string()).collect();
        let many: Vec<(&str, f64)> = names.iter().map(|name| (name.as_str(), 1.0)).collect();
        let many = pushed_of_tests(&many, &[]);
        assert_eq!(latest.take(&many, 10).unwrap(), (10, METRICS_MAX - 10));
        assert_eq!(latest.len(), 11, "no more than there was room for");
        assert_eq!(
            latest.take(&many, usize::MAX).unwrap(),
            (METRICS_MAX - 1, 1)
        );
        assert_eq!(latest.len(), METRICS_MAX);
    }

    #[test]
    fn a_long_name_of_many_points_costs_nothing() {
        let point = NumberDataPoint {
            as_double: Some(1.0),
            ..NumberDataPoint::default()
        };
        let gauge = Gauge {
            data_points: vec![point; 50_000],
        };
        let metric = |name: String| Metric {
            name,
            gauge: Some(gauge.clone()),
            sum: None,
        };
        let scope_metrics = vec![ScopeMetrics {
            metrics: vec![metric("a".repeat(500_000)), metric("b".to_owned())],
        }];
        let data = MetricsData {
            resource_metrics: vec![ResourceMetrics { scope_metrics }],
        };
        let mut latest = Latest::default();
        let taken = latest.take(&data.encode_to_vec(), 100).unwrap();
        assert_eq!(taken, (0, 100_000), "too long, and too many");
    }

    #[test]
    fn what_is_no_metrics_data_changes_nothing() {
        let mut latest = Latest::default();
        let mut cut = pushed_of_tests(&[("a", 1.0)], &[]);
        cut.pop();
        assert!(latest.take(&cut, 100).is_err() && latest.is_empty());
        assert_eq!(latest.take(&[], 100).unwrap(), (0, 0));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut latest = Latest::default();
            let _ = latest.take(&bytes, 3);
            prop_assert!(latest.len() <= 3);
        }
    }
}
