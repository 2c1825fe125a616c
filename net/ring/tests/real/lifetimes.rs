//! What outlives what: rings, cores, tasks, files, sockets and their buffers.

use bytes::Bytes;
use ringmill_ring::{File, OpenOptions};

use super::{folder, ring};

fn read_write() -> OpenOptions {
    OpenOptions::new().read(true).write(true).create(true)
}

/// Both rings have a table of registered files, and both files have its first place.
#[test]
fn a_file_of_an_ended_ring_is_not_mistaken_for_another() {
    let dir = folder("ended");
    let first = ring(File::open(dir.join("first"), read_write())).unwrap();
    ring(async {
        let second = File::open(dir.join("second"), read_write()).await.unwrap();
        first
            .write_at(0, vec![Bytes::from_static(b"for the first")])
            .await
            .unwrap();
        assert_eq!(second.len().await.unwrap(), 0);
        assert_eq!(first.read_at(0, 100).await.unwrap(), "for the first");
    });
}
