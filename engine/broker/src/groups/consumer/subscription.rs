//! What members subscribe to: names, and patterns over the names of all topics (RE2's syntax, in
//! linear time). Patterns are resolved when they come and whenever topics come or go.

use std::collections::BTreeSet;

use crate::cluster::image::Image;
use crate::pattern::Pattern;

/// The topics whose names a pattern matches; the broker's own are nobody's to subscribe to by one.
pub(super) fn matched_topics(pattern: &Pattern, image: &Image) -> BTreeSet<String> {
    let all = image.topics().filter(|topic| !topic.is_internal());
    all.filter(|topic| pattern.matches(&topic.name))
        .map(|topic| topic.name.to_string())
        .collect()
}

/// A number that changes when one of these topics comes, goes or grows, and never by a restart
/// (FNV-1a); 0 if none of them exists, as of a group that nobody has joined.
pub(super) fn fingerprint<'a>(names: impl Iterator<Item = &'a String>, image: &Image) -> i64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut take = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    let mut topics = names.filter_map(|name| image.topic(name)).peekable();
    if topics.peek().is_none() {
        return 0;
    }
    for topic in topics {
        take(topic.id.as_bytes());
        take(topic.name.as_bytes());
        take(&topic.count().to_be_bytes());
    }
    hash.cast_signed()
}
